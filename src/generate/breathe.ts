/**
 * Lets the rest of the process run between pieces of long work.
 *
 * @module
 */

/** Turns of the event loop. */
export interface Breath extends Disposable {
  /** Resolves when whatever was ready has had its turn. */
  next(): Promise<void>;
}

/**
 * Begins work in pieces. A message to oneself comes back in microseconds, where a timer takes a millisecond at least.
 *
 * @returns Its pauses; to be disposed when the work is done, for an open channel keeps a process alive.
 */
export function breathe(): Breath {
  const { port1, port2 } = new MessageChannel();
  let wake = () => {};
  port1.onmessage = () => wake();
  return {
    next() {
      const woken = new Promise<void>((resolve) => wake = resolve);
      port2.postMessage(null);
      return woken;
    },
    [Symbol.dispose]() {
      port1.close();
      port2.close();
    },
  };
}
