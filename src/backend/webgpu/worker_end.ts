/**
 * How workers with a GPU end. While a process exits, no thread may be taking its device down: Mesa's software driver
 * then frees twice (Deno 2.9.6, lavapipe of Mesa 22: 9 of 100 processes ended by SIGSEGV or SIGABRT that had left a
 * worker to Deno, none with what stands here). So a worker that is still there is told to stand still, which
 * leaves its memory to the system, and one that has just ended gets the time for it. To be deleted when Deno waits for
 * its workers' threads.
 *
 * @module
 */
import type { Worker } from "node:worker_threads";
import type { ToWorker } from "./messages.ts";

/** A worker's states, in the first word of what it shares. */
export const RUNNING = 0, STANDING = 1, ENDING = 2;

/** Milliseconds that a disposed worker stays, so that a process that ends soon finds it standing. */
export const LINGER = 500;
/** Milliseconds that a worker that is busy is waited for. */
const PATIENCE = 1000;
/** Milliseconds that a worker takes to end: 20 were enough. */
const TEARDOWN = 100;

const workers = new Map<Worker, Int32Array>();
let lastEnd = -Infinity;
let watching = false;

/**
 * Watches a worker until it ends.
 *
 * @param worker The worker.
 * @param state What is shared with it: its state, and a word that nobody ever changes.
 */
export function watch(worker: Worker, state: Int32Array): void {
  workers.set(worker, state);
  worker.on("exit", () => {
    workers.delete(worker);
    lastEnd = performance.now();
  });
  if (watching) return;
  watching = true;
  globalThis.addEventListener("unload", standStill);
}

/** Returns when no worker is at anything. */
function standStill(): void {
  for (const worker of workers.keys()) worker.postMessage({ halt: true } satisfies ToWorker);
  const end = performance.now() + PATIENCE;
  let pause = lastEnd + TEARDOWN - performance.now();
  for (const state of workers.values()) {
    Atomics.wait(state, 0, RUNNING, Math.max(0, end - performance.now()));
    if (Atomics.load(state, 0) === ENDING) pause = TEARDOWN;
  }
  if (pause > 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, pause);
}

/** In the worker: stands still until the process is gone. */
export function halt(state: Int32Array): void {
  Atomics.store(state, 0, STANDING);
  Atomics.notify(state, 0);
  Atomics.wait(state, 1, 0);
}

/** In the worker, whose device is gone: ends it in a while. */
export function endSoon(state: Int32Array): void {
  setTimeout(() => {
    Atomics.store(state, 0, ENDING);
    Atomics.notify(state, 0);
    globalThis.close();
  }, LINGER);
}
