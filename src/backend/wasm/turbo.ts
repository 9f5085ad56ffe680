/**
 * Turbo: whether matrix products are computed 16 columns at once.
 *
 * V8 can turn pairs of WebAssembly's 128-bit operations into 256-bit ones (on x86 with AVX2), which doubles the
 * speed of matrix products. It is an experiment of V8's behind a flag, and finds pairs only where no check of
 * bounds lies between, which a second flag leaves out:
 *
 *     DENO_V8_FLAGS=--experimental-wasm-revectorize,--no-wasm-bounds-checks
 *
 * That flag takes memory safety away from all WebAssembly of the process, so nobody gets it unasked. A running program
 * can neither set the flags (V8 ignores that) nor read them, so the clock says whether wide tiles are the faster ones:
 * on a Zen 4 core 1.42 times as fast as narrow ones with the flags, which pair those too, and 0.76 times without
 * (strict: 1.15 and 0.87; within 0.02 from run to run, and the line is drawn at 1). They compute the same bits
 * (wasm/tile_wide.ts): being wrong costs time and nothing else.
 *
 * @module
 */
import { Heap } from "./heap.ts";
import { compile, instantiate, type InstructionSet } from "./instance.ts";
import type { Kernels } from "./kernels.gen.ts";

/** In the flags of `matmul`: 16 columns at once. */
export const WIDE = 4;

/** Multiplications that are worth a measurement beside them: 2 to 4 ms, of which it takes a fortieth. */
const WORTH = 1e8;
/**
 * Multiplications done before trials, the second of which corrects the first: V8 compiles hastily first and
 * optimises, on another thread, what has run for some milliseconds. By then that has happened to narrow tiles.
 */
const TRIALS = [2e9, 3e10];
/** Measurements of a trial, of which the shortest times count. */
const ROUNDS = 5;
/** Wide tiles this many times as slow are not optimised yet: measuring them makes V8 do that. */
const COLD = 2;
/** So many measurements of cold tiles are enough. */
const COLD_ROUNDS = 40;
/** Measurements before the first that counts: with 8-bit weights the narrow tiles may be as cold as the wide ones. */
const WARMING_ROUNDS = 8;

/** The trial's product: some 40 µs. */
const [M, N, K] = [60, 64, 256];
const FLOATS = M * K + K * N + M * N;

/** Milliseconds that a product took with narrow and with wide tiles. */
type Times = [narrow: number, wide: number];

/** Bytes of memory that a measurement needs. */
export function trialBytes(kernels: Kernels): number {
  return FLOATS * 4 + (kernels.matmulScratch(M, N, K, false) >>> 0);
}

/** Measures a product once each way, in memory of {@linkcode trialBytes} bytes, a multiple of 4. */
export function measure(kernels: Kernels, memory: WebAssembly.Memory, at: number): Times {
  new Float32Array(memory.buffer, at, FLOATS).fill(0); // Of what lies there, some numbers may be slow.
  const b = at + M * K * 4;
  const out = b + K * N * 4;
  const time = (flags: number) => {
    const begin = performance.now();
    kernels.matmul(at, false, b, 0, false, out, M, N, K, 1, flags, 0, 0, at + FLOATS * 4, 0, M, 0, N / 16);
    return performance.now() - begin;
  };
  return [time(0), time(WIDE)];
}

/**
 * Whether this is a processor for which V8 makes pairs. Others have more registers: wide tiles may be faster there
 * for that alone.
 */
function pairs(): boolean {
  return globalThis.Deno?.build.arch === "x86_64";
}

/** Which tiles are the faster ones, found out while there is real work to do. */
export class Turbo {
  /** Which tiles are taken now. */
  wide: boolean;
  #work = 0;
  #trial = 0;
  #rounds = 0;
  #cold = 0;
  #warming = WARMING_ROUNDS;
  #best: Times = [Infinity, Infinity];

  /** @param wide Which tiles to use, where that is not to be found out. */
  constructor(wide?: boolean) {
    this.wide = wide ?? false;
    if (wide !== undefined) this.#trial = TRIALS.length;
  }

  /** Whether products are now computed with 256 bits. */
  get active(): boolean {
    return this.wide && pairs();
  }

  /**
   * Whether to compute a product 16 columns at once.
   *
   * @param work The product's multiplications.
   * @param measure A measurement, which may be called for.
   */
  takes(work: number, measure: () => Times): boolean {
    this.#work += work;
    for (let worth = Math.min(work, ROUNDS * WORTH); worth >= WORTH && this.#due; worth -= WORTH) {
      this.#count(measure());
    }
    return this.wide;
  }

  /** Whether it is time for a trial. */
  get #due(): boolean {
    return this.#work >= (TRIALS[this.#trial] ?? Infinity);
  }

  #count([narrow, wide]: Times): void {
    if (this.#warming-- > 0) return;
    if (wide > COLD * narrow && this.#cold++ < COLD_ROUNDS) return;
    this.#best = [Math.min(this.#best[0], narrow), Math.min(this.#best[1], wide)];
    if (++this.#rounds < ROUNDS) return;
    this.wide = this.#best[1] < this.#best[0];
    this.#trial++;
    this.#rounds = 0;
    this.#cold = 0;
    this.#best = [Infinity, Infinity];
  }
}

const found = new WeakMap<WebAssembly.Module, Turbo>();

/** A compiled module's, one for all of its instances: V8 compiles it once for them. */
export function turboOf(module: WebAssembly.Module): Turbo {
  let turbo = found.get(module);
  if (!turbo) found.set(module, turbo = new Turbo());
  return turbo;
}

/** What was found out about V8's flags. */
export interface TurboDescription {
  /** Whether matrix products will be computed with 256 bits. */
  active: boolean;
  /** How many times as fast as others the tiles for 256 bits are: about 0.75 without V8's flags, 1.4 with them. */
  gain: number;
}

/**
 * Finds out whether V8's flags are set, in some 150 ms.
 *
 * @param set The build.
 * @param shared Whether it is for threads.
 * @returns Whether wide tiles are faster here, and by how much.
 */
export async function describeTurbo(set: InstructionSet, shared: boolean): Promise<TurboDescription> {
  const { module } = await compile(set, shared);
  const heap = new Heap(undefined, shared);
  const kernels = instantiate(module, heap.memory);
  const at = heap.scratch(trialBytes(kernels));
  const begin = performance.now();
  const since = () => performance.now() - begin;
  let [narrow, wide] = [0, 0];
  do [narrow, wide] = measure(kernels, heap.memory, at); while (
    since() < 100 || (wide > COLD * narrow && since() < 600)
  );
  for (const end = since() + 50; since() < end;) {
    const times = measure(kernels, heap.memory, at);
    [narrow, wide] = [Math.min(narrow, times[0]), Math.min(wide, times[1])];
  }
  const gain = narrow / wide;
  return { active: gain > 1 && pairs(), gain: Math.round(gain * 100) / 100 };
}
