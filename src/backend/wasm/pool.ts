/**
 * The workers that compute beside the calling thread, on one shared memory.
 *
 * They are called when there has been enough work to pay for them, take tiles as they come (nobody waits for
 * one that is still on its way), sleep when there are none, and end when the pool is disposed or has been
 * idle for half a minute; for half a second where a worker keeps its process alive.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";
import * as tiles from "./tiles.ts";
import { WORKER } from "./worker.gen.ts";

/** A range of a kernel's arguments that is cut into tiles. */
export interface Range {
  /** Which argument its begin is; its end is the next. */
  at: number;
  /** Its begin. */
  begin: number;
  /** Its end. */
  end: number;
  /** How long a piece is; the last may be shorter. */
  step: number;
}

/** A kernel's call that is cut into tiles along one range or two. */
export interface TiledCall {
  /** Which of the module's exports. */
  kernel: number;
  /** Its arguments. */
  args: number[];
  /** What is cut. */
  ranges: Range[];
  /** Which argument is each thread's own scratch memory, and how far apart these lie. */
  scratch?: { at: number; stride: number };
}

/** What a pool works on, and when it calls for workers. */
export interface PoolOptions {
  /** The kernels, compiled for shared memory. */
  module: WebAssembly.Module;
  /** The shared memory. */
  memory: WebAssembly.Memory;
  /** The calling thread's instance of the module. */
  exports: WebAssembly.Exports;
  /** How many threads compute, the calling one among them. */
  threads: number;
  /** Nanoseconds of work that could have been shared for each worker that is called. */
  price: number;
  /** Nanoseconds of work that could have been shared for which workers that sleep are woken. */
  wake: number;
  /** Milliseconds of idleness after which a worker ends; by default as many as it does no harm. */
  patience?: number;
}

/** What a worker costs that was here before, of what a new one does. */
const AGAIN = 0.05;
/** Milliseconds that the calling thread spins for the last tiles before it sleeps. */
const SPIN = 0.05;
/** The most threads of a pool. */
export const MOST_THREADS = tiles.MOST_THREADS;

let source: string | undefined;

/** Whether this runtime has what a pool is made of. */
export function canShare(): boolean {
  try {
    return typeof Worker === "function" && typeof Atomics.wait === "function" &&
      typeof URL.createObjectURL === "function" && typeof SharedArrayBuffer === "function" &&
      new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }).buffer instanceof SharedArrayBuffer;
  } catch {
    return false;
  }
}

/** How many cores there are to compute with; 1 where nothing can be shared. */
export function cores(): number {
  return canShare() ? Math.min(MOST_THREADS, globalThis.navigator?.hardwareConcurrency || 1) : 1;
}

/** How long idle workers stay that do not keep the process alive, and that do. */
const PATIENCE = { free: 30_000, bound: 500 };

/**
 * Lets the process end though a worker is there. Deno 2.9 has that for `node:worker_threads` alone, whose `unref` calls a
 * method of the web's workers that has no name. To begin a worker anew takes the caller 11 to 13 ms and the worker 12 to
 * 24 on two Zen 4 cores, a third of the answer to a prompt of 64 tokens; one of `node:worker_threads` takes 30 to 44. To be
 * deleted when workers have a public `unref`; without that method workers only leave sooner.
 *
 * @returns Whether it can be done.
 */
function release(worker: Worker): boolean {
  const prototype: object = Worker.prototype;
  for (const symbol of Object.getOwnPropertySymbols(prototype)) {
    const method: unknown = Reflect.get(prototype, symbol);
    if (typeof method !== "function" || method.length !== 1 || !/\bunrefOpPromise\b/.test(`${method}`)) {
      continue;
    }
    method.call(worker, false);
    return true;
  }
  return false;
}

/** Whether a thread may sleep; browsers' main threads may not. */
function maySleep(words: Int32Array): boolean {
  try {
    Atomics.wait(words, tiles.EPOCH, Atomics.load(words, tiles.EPOCH) + 1, 0);
    return true;
  } catch {
    return false;
  }
}

/** The workers of one backend. */
export class Pool implements Disposable {
  readonly #options: PoolOptions;
  readonly #control = new SharedArrayBuffer(tiles.CONTROL_BYTES);
  readonly #own: tiles.Bench;
  readonly #words: Int32Array;
  readonly #maySleep: boolean;
  /** How many threads compute at most, the calling one among them: each has scratch memory. */
  readonly threads: number;
  /** Nanoseconds of work that could have been shared, since a worker was last called. */
  #work = 0;
  /** The most workers that there were. */
  #most = 0;
  /** The same since workers fell asleep. */
  #missed = 0;
  /** Whether workers can still be called. */
  #open = true;

  /** @param options What it works on. */
  constructor(options: PoolOptions) {
    this.#options = options;
    this.#own = tiles.bench(this.#control, options.exports, 0);
    this.#words = this.#own.words;
    this.#maySleep = maySleep(this.#words);
    this.threads = options.threads;
  }

  /** How many threads compute, or will when there is enough to do. */
  get strength(): number {
    return this.#open ? this.threads : 1 + this.here;
  }

  /** How many workers there are now. */
  get here(): number {
    return Atomics.load(this.#words, tiles.HERE);
  }

  /** Tiles that each thread has computed so far. */
  get tiles(): number[] {
    return Array.from(this.#words.subarray(tiles.TILES_BY, tiles.TILES_BY + this.threads));
  }

  /**
   * Whether there are workers to share work with, be they on their way; calls another, or wakes those that sleep,
   * when it is time to.
   *
   * @param work Nanoseconds that the work takes on one thread.
   */
  joins(work: number): boolean {
    const here = this.here;
    if (here > this.#most) this.#most = here;
    if (this.#open && here < this.threads - 1) {
      this.#work += work;
      // Who had that much to do before will have it again.
      if (this.#work >= this.#options.price * (here < this.#most ? AGAIN : 1)) {
        this.#work = 0;
        this.#call();
      }
    }
    // One that comes while a long call is computed takes its share of what is left.
    if (here === 0) return this.#awaited;
    this.#missed = Atomics.load(this.#words, tiles.SLEEPERS) < here
      ? this.#options.wake
      : this.#missed + work;
    if (this.#missed < this.#options.wake) return false;
    this.#missed = 0;
    return true;
  }

  /** Whether a worker was called, and may be on its way. */
  get #awaited(): boolean {
    for (let thread = 1; thread < this.threads; thread++) {
      if (Atomics.load(this.#words, tiles.CALLED + thread)) return true;
    }
    return false;
  }

  /** Starts a worker, if one is missing. */
  #call(): void {
    const words = this.#words;
    for (let thread = 1; thread < this.threads; thread++) {
      if (Atomics.compareExchange(words, tiles.CALLED + thread, 0, 1) !== 0) continue;
      try {
        // A Blob's URL needs no permission, and never goes away: there is one in a process.
        source ??= URL.createObjectURL(new Blob([WORKER], { type: "text/javascript" }));
        const worker = new Worker(source, { type: "module" });
        worker.onerror = (event) => {
          event.preventDefault();
          this.#open = false;
        };
        const { module, memory } = this.#options;
        const free = release(worker);
        const patience = this.#options.patience ?? (free ? PATIENCE.free : PATIENCE.bound);
        const task: tiles.Task = { module, memory, control: this.#control, thread, patience };
        worker.postMessage(task);
      } catch {
        this.#open = false; // Workers cannot be had here: those that came stay, and no more are called.
      }
      return;
    }
  }

  /** Calls all workers that are missing, and waits until they are here: for tests and measurements. */
  async assemble(): Promise<void> {
    while (this.#open && this.here < this.threads - 1) {
      this.#call();
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  /**
   * Computes calls that do not depend on one another; returns when all of them are done.
   *
   * @param calls The calls; the longest tiles are best first.
   * @throws {WhetError} `backend` if a kernel fails, on whatever thread.
   */
  run(calls: TiledCall[]): void {
    for (let i = 0; i < calls.length; i += tiles.MOST_CALLS) {
      const total = this.#layOut(calls.slice(i, i + tiles.MOST_CALLS));
      this.#publish(total);
      tiles.takeTiles(this.#own);
      this.#finish(total);
    }
  }

  /** Writes the records of a batch; returns how many tiles there are. */
  #layOut(calls: TiledCall[]): number {
    const { numbers } = this.#own;
    let total = 0;
    calls.forEach(({ kernel, args, ranges, scratch }, i) => {
      const record = tiles.CALLS + i * tiles.RECORD;
      let count = 1;
      for (let r = 0; r < 2; r++) {
        const { at, begin, end, step } = ranges[r] ?? { at: -1, begin: 0, end: 1, step: 1 };
        const pieces = Math.ceil((end - begin) / step);
        const place = record + tiles.RANGES + r * 5;
        numbers[place] = at;
        numbers[place + 1] = begin;
        numbers[place + 2] = end;
        numbers[place + 3] = step;
        numbers[place + 4] = pieces;
        count *= pieces;
      }
      numbers[record + tiles.KERNEL] = kernel;
      numbers[record + tiles.FIRST_TILE] = total;
      numbers[record + tiles.TILES] = count;
      numbers[record + tiles.SCRATCH] = scratch?.at ?? -1;
      numbers[record + tiles.SCRATCH + 1] = scratch?.stride ?? 0;
      numbers[record + tiles.ARITY] = args.length;
      for (let a = 0; a < args.length; a++) numbers[record + tiles.ARGUMENTS + a] = Number(args[a]);
      total += count;
    });
    return total;
  }

  #publish(total: number): void {
    const words = this.#words;
    words[tiles.BATCH]++;
    words[tiles.TOTAL] = total;
    words[tiles.PAGES] = this.#own.pages();
    Atomics.store(words, tiles.DONE, 0);
    Atomics.store(words, tiles.LEFT, total);
    if (Atomics.load(words, tiles.SLEEPERS) > 0) this.#wake();
  }

  #wake(): void {
    Atomics.add(this.#words, tiles.EPOCH, 1);
    Atomics.notify(this.#words, tiles.EPOCH);
  }

  /** Waits for the tiles that workers took. */
  #finish(total: number): void {
    const words = this.#words;
    const done = () => Atomics.load(words, tiles.DONE) === total;
    while (!done() && !tiles.spin(done, SPIN)) {
      if (!this.#maySleep) continue;
      Atomics.store(words, tiles.WAITING, 1);
      for (let so = Atomics.load(words, tiles.DONE); so !== total; so = Atomics.load(words, tiles.DONE)) {
        Atomics.wait(words, tiles.DONE, so);
      }
      Atomics.store(words, tiles.WAITING, 0);
    }
    const failed = words[tiles.FAILED];
    if (failed === 0) return;
    words[tiles.FAILED] = 0;
    const text = String.fromCharCode(...words.subarray(tiles.TEXT, tiles.TEXT + failed));
    throw new WhetError("backend", `a WebAssembly kernel failed: ${text}; results since are not to be used`);
  }

  /** Sends the workers home. */
  [Symbol.dispose](): void {
    this.#open = false;
    Atomics.store(this.#words, tiles.STOP, 1);
    this.#wake();
  }
}
