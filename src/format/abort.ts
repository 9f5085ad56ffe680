/**
 * Waiting that an abort ends.
 *
 * @module
 */

/**
 * Waits for work, or until a signal is aborted.
 *
 * `fetch` is given the same signal, but Deno 2.9.6 loses an abort now and then: of 400 that came within
 * 6 ms of the response one left the read of the body waiting forever, under load one in 15. To be
 * deleted when aborted reads always end by themselves.
 *
 * @param work What is waited for; if it is not waited for any longer its outcome is dropped.
 * @param signal What ends the waiting.
 * @returns What the work gives.
 * @throws The signal's reason, or what the work throws.
 */
export async function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const stop = () => aborted.reject(signal.reason);
  if (signal.aborted) stop();
  else signal.addEventListener("abort", stop);
  try {
    return await Promise.race([work, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
