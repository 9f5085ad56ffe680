/**
 * What every thread runs, the calling one too: it takes tiles of the kernel calls that are laid out in a block
 * of shared memory until none is left. Who takes which tile is a matter of chance, and of no consequence.
 *
 * `deno task build` embeds this file as the workers' source: it imports nothing.
 *
 * @module
 */

/*
 * The control block. First words, those that several threads write in cache lines of their own, then the
 * calls of a batch, each a record of numbers.
 */

/** Word: tiles of the batch that nobody took; 0 or less between batches. */
export const LEFT = 0;
/** Word: tiles of the batch that are computed. */
export const DONE = 16;
/** Word: changes whenever sleeping workers are to wake. */
export const EPOCH = 32;
/** Word: workers that sleep, or are about to. */
export const SLEEPERS = 33;
/** Word: workers that take tiles. */
export const HERE = 34;
/** Word: whether the calling thread sleeps until the batch is done. */
export const WAITING = 48;
/** Word: whether workers are to end. */
export const STOP = 49;
/** Word: the batch's number. */
export const BATCH = 50;
/** Word: tiles of the batch. */
export const TOTAL = 51;
/** Word: pages of memory that the batch's addresses lie in. */
export const PAGES = 52;
/** Word: characters of what went wrong, which follow from TEXT on; 0 if nothing did. */
export const FAILED = 53;
/** Words: what went wrong, a character each. */
export const TEXT = 64;
/** Of so many words. */
export const TEXT_LENGTH = 192;
/** Words: whether there is, or is to be, a worker of each number. */
export const CALLED = 256;
/** Words: tiles that each thread computed. */
export const TILES_BY = 512;
/** The most threads. */
export const MOST_THREADS = 256;

/** Number: the first record of a call. */
export const CALLS = 512;
/** Numbers of a record. */
export const RECORD = 40;
/** Records that fit. */
export const MOST_CALLS = 200;
/** In a record: which of the module's exports is called. */
export const KERNEL = 0;
/** In a record: its first tile. */
export const FIRST_TILE = 1;
/** In a record: its tiles. */
export const TILES = 2;
/** In a record: which argument is each thread's own scratch memory, or −1, and how far apart these lie. */
export const SCRATCH = 3;
/** In a record: the two ranges that are cut, each as [which argument is its begin, begin, end, step, pieces]. */
export const RANGES = 5;
/** In a record: how many arguments there are. */
export const ARITY = 15;
/** In a record: the arguments. */
export const ARGUMENTS = 16;
/** Bytes of the control block. */
export const CONTROL_BYTES = (CALLS + MOST_CALLS * RECORD) * 8;

/** The control block, and what computes. */
export interface Bench {
  /** The control block's words. */
  words: Int32Array;
  /** The control block as numbers. */
  numbers: Float64Array;
  /** The module's exports in their order. */
  kernels: ((...args: number[]) => void)[];
  /** How many pages of memory this thread's instance of the module knows of. */
  pages: () => number;
  /** Which thread this is: 0 calls, workers count from 1. */
  thread: number;
}

/** What a worker is told. */
export interface Task {
  /** The kernels. */
  module: WebAssembly.Module;
  /** The memory that all threads share. */
  memory: WebAssembly.Memory;
  /** The control block. */
  control: SharedArrayBuffer;
  /** Which thread it is. */
  thread: number;
  /** Milliseconds of idleness after which it ends. */
  patience: number;
}

/** A thread's view of the control block and of the kernels. */
export function bench(control: SharedArrayBuffer, exports: WebAssembly.Exports, thread: number): Bench {
  return {
    words: new Int32Array(control),
    numbers: new Float64Array(control),
    kernels: Object.values(exports) as Bench["kernels"],
    pages: exports.pages as Bench["pages"],
    thread,
  };
}

/** Computes tiles until none is left. */
export function takeTiles({ words, numbers, kernels, pages, thread }: Bench): void {
  let batch = 0;
  let call = CALLS;
  for (;;) {
    // Nothing of a batch is read before a tile of it is taken: until that tile is done, the batch stays.
    const left = Atomics.sub(words, LEFT, 1);
    if (left <= 0) return;
    if (words[BATCH] !== batch) {
      batch = words[BATCH];
      call = CALLS;
      // V8 tells a thread of a memory that grew by an interrupt, which loops let in; an access beyond the old
      // end would trap before it came.
      while (pages() < words[PAGES]);
    }
    const tile = words[TOTAL] - left;
    while (tile >= numbers[call + FIRST_TILE] + numbers[call + TILES]) call += RECORD;
    const args: number[] = [];
    for (let i = 0; i < numbers[call + ARITY]; i++) args.push(numbers[call + ARGUMENTS + i]);
    let rest = tile - numbers[call + FIRST_TILE];
    for (let range = call + RANGES; range < call + RANGES + 10; range += 5) {
      const pieces = numbers[range + 4];
      const begin = numbers[range + 1] + (rest % pieces) * numbers[range + 3];
      const at = numbers[range];
      if (at >= 0) {
        args[at] = begin;
        args[at + 1] = Math.min(numbers[range + 2], begin + numbers[range + 3]);
      }
      rest = Math.floor(rest / pieces);
    }
    if (numbers[call + SCRATCH] >= 0) args[numbers[call + SCRATCH]] += thread * numbers[call + SCRATCH + 1];
    try {
      kernels[numbers[call + KERNEL]](...args);
    } catch (error) {
      tell(words, error);
    }
    words[TILES_BY + thread]++;
    Atomics.add(words, DONE, 1);
    if (Atomics.load(words, WAITING) !== 0) Atomics.notify(words, DONE);
  }
}

/** Leaves word of what went wrong for the calling thread. */
function tell(words: Int32Array, error: unknown): void {
  const text = (error instanceof Error ? error.message : `${error}`).slice(0, TEXT_LENGTH) || "unknown";
  for (let i = 0; i < text.length; i++) words[TEXT + i] = text.charCodeAt(i);
  Atomics.store(words, FAILED, text.length);
}

/** Tells the processor that this is a loop that waits, where the engine has a way to. */
const pause: () => void = (Atomics as { pause?: () => void }).pause ?? (() => {});

/**
 * Spins until a condition holds, for a while.
 *
 * @param condition What is waited for.
 * @param milliseconds How long.
 * @returns Whether it came to hold.
 */
export function spin(condition: () => boolean, milliseconds: number): boolean {
  const end = performance.now() + milliseconds;
  do {
    for (let i = 0; i < 64; i++) {
      if (condition()) return true;
      pause();
    }
  } while (performance.now() < end);
  return false;
}

/** How long an idle worker spins before it sleeps, in milliseconds: about what waking it would cost. */
const SPIN = 0.05;

/** A worker's life: it takes tiles, sleeps when there are none, and ends when told to or long idle. */
export function serve({ module, memory, control, thread, patience }: Task): void {
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  const own = bench(control, exports, thread);
  const { words } = own;
  const called = () => Atomics.load(words, LEFT) > 0 || Atomics.load(words, STOP) !== 0;
  Atomics.add(words, HERE, 1);
  let idle = false;
  while (!idle && Atomics.load(words, STOP) === 0) {
    takeTiles(own);
    if (spin(called, SPIN)) continue;
    Atomics.add(words, SLEEPERS, 1);
    const epoch = Atomics.load(words, EPOCH);
    if (!called()) idle = Atomics.wait(words, EPOCH, epoch, patience) === "timed-out";
    Atomics.sub(words, SLEEPERS, 1);
  }
  Atomics.sub(words, HERE, 1);
  Atomics.store(words, CALLED + thread, 0);
}
