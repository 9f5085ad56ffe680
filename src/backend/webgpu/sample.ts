/**
 * The choice of the next token.
 *
 * @module
 */
import type * as K from "../../tensor/backend.ts";
import { SLICE_ALIGNMENT } from "../../tensor/tensor.ts";
import { runsLargeGroups } from "./features.ts";
import type { Gpu } from "./gpu.ts";
import { temporary } from "./memory.ts";
import { type Slice, slice } from "./slices.ts";

/** Words of a row's options, as the kernel has them. */
const ROW = 6;
/** Words of what the kernel finds in a stretch of a row, tokens of a stretch, and those of each of its 256 threads. */
const PART = 5;
const EACH = 4;
const STRETCH = 256 * EACH;
/** The variants: of the look at the parts, and of the choice with 256 threads and with 1024; for many rows and for one. */
const MANY = { look: { EACH }, narrow: { BITS: 8 }, large: { BITS: 10 } };
const ONE = {
  look: { EACH, SINGLE: true },
  narrow: { BITS: 8, SINGLE: true },
  large: { BITS: 10, SINGLE: true },
};
/** More tokens than that are worth a workgroup of 1024 threads, if the device has them and this memory for them. */
const LARGE = 4096;
const LARGE_BYTES = 20 << 10;
/** The largest f32: what 1 / temperature is kept below. */
const LARGEST = 3.4028234e38;

/** A row's options as the kernels have them, in the order of their fields. */
interface Row {
  [field: string]: number;
  factor: number;
  topK: number;
  topP: number;
  penalty: number;
  draw: number;
  slot: number;
}

function rowOf({ temperature, topK, topP, repetitionPenalty: penalty, draw, slot }: K.SampleRow): Row {
  const factor = Math.min(1 / temperature, LARGEST);
  return { factor, topK: temperature === 0 ? 1 : Math.min(topK, 0xffffffff), topP, penalty, draw, slot };
}

/** A token for each row, in two kernels; as many rows at once as a binding holds. */
export function sample(gpu: Gpu, { logits, rows, seen, tokens, logProbs }: K.SampleArgs): void {
  const [N, V] = logits.shape;
  const wide = V > LARGE && runsLargeGroups(gpu.device, LARGE_BYTES);
  const parts = Math.ceil(V / STRETCH);
  const half = Math.min(16, 31 - Math.floor(Math.log2(V)));

  const choose = (first: number, count: number, options?: Slice) => {
    // Small buffers wander about, for tokens are read back late: a larger one is the same every time.
    temporary(gpu, [Math.max(count * parts * PART, 1024)], (found) => {
      const bindings = {
        logits: slice(logits, first * V, count * V),
        rows: options,
        seen: seen && slice(seen),
        parts: slice(found),
      };
      const common = { N: count, V, words: seen ? seen.shape[1] : 0, half, parts };
      const params = options ? common : { ...common, ...rowOf(rows[first]) };
      const { look, narrow, large } = options ? MANY : ONE;
      gpu.run("sample_parts", bindings, params, [count * parts], look);
      const chosen = { tokens: slice(tokens, first, count), logProbs: slice(logProbs, first, count) };
      gpu.run("sample", { ...bindings, ...chosen }, params, [count], wide ? large : narrow);
    });
  };

  if (N === 1) return choose(0, 1);
  const words = new Uint32Array(N * ROW);
  const floats = new Float32Array(words.buffer);
  rows.forEach((row, n) => {
    const { factor, topK, topP, penalty, draw, slot } = rowOf(row);
    floats[n * ROW] = factor;
    words[n * ROW + 1] = topK;
    floats.set([topP, penalty, draw], n * ROW + 2);
    words[n * ROW + 5] = slot;
  });
  const atOnce = Math.max(1, Math.floor(gpu.maxBindingBytes / 4 / V / SLICE_ALIGNMENT)) * SLICE_ALIGNMENT;
  for (let first = 0; first < N; first += atOnce) {
    const count = Math.min(atOnce, N - first);
    temporary(gpu, [count * ROW], (options) => {
      gpu.write(slice(options), words.subarray(first * ROW, (first + count) * ROW));
      choose(first, count, slice(options));
    });
  }
}
