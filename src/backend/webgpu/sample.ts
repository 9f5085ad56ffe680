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
import { slice } from "./slices.ts";
import type { Constants } from "./template.ts";

/** Words of a row's options, as the kernel has them. */
const ROW = 6;
/** Words of what the kernel finds in a stretch of a row, tokens of a stretch, and those of each of its 256 threads. */
const PART = 5;
const EACH = 4;
const STRETCH = 256 * EACH;
const PARTS: Constants = { EACH };
/** A workgroup of 256 threads to a row, and of 1024. */
const NARROW: Constants = { BITS: 8 };
const WIDE: Constants = { BITS: 10 };
/** More tokens than that are worth a workgroup of 1024 threads, if the device has them and this memory for them. */
const LARGE = 4096;
const LARGE_BYTES = 20 << 10;
/** The largest f32: what 1 / temperature is kept below. */
const LARGEST = 3.4028234e38;

/** A token for each row, in two kernels; as many rows at once as a binding holds. */
export function sample(gpu: Gpu, { logits, rows, seen, tokens, logProbs }: K.SampleArgs): void {
  const [N, V] = logits.shape;
  const words = new Uint32Array(N * ROW);
  const floats = new Float32Array(words.buffer);
  rows.forEach(({ temperature, topK, topP, repetitionPenalty, draw, slot }, n) => {
    floats[n * ROW] = Math.min(1 / temperature, LARGEST);
    words[n * ROW + 1] = temperature === 0 ? 1 : Math.min(topK, 0xffffffff);
    floats[n * ROW + 2] = topP;
    floats[n * ROW + 3] = repetitionPenalty;
    floats[n * ROW + 4] = draw;
    words[n * ROW + 5] = slot;
  });
  const width = V > LARGE && runsLargeGroups(gpu.device, LARGE_BYTES) ? WIDE : NARROW;
  const parts = Math.ceil(V / STRETCH);
  const half = Math.min(16, 31 - Math.floor(Math.log2(V)));
  const atOnce = Math.max(1, Math.floor(gpu.maxBindingBytes / 4 / V / SLICE_ALIGNMENT)) * SLICE_ALIGNMENT;
  for (let first = 0; first < N; first += atOnce) {
    const count = Math.min(atOnce, N - first);
    temporary(gpu, [count * ROW], (options) => {
      gpu.write(slice(options), words.subarray(first * ROW, (first + count) * ROW));
      // Small buffers wander about, for tokens are read back late: a larger one is the same every time.
      temporary(gpu, [Math.max(count * parts * PART, 1024)], (found) => {
        const bindings = {
          logits: slice(logits, first * V, count * V),
          rows: slice(options),
          seen: seen && slice(seen),
          parts: slice(found),
        };
        const params = { N: count, V, words: seen ? seen.shape[1] : 0, half, parts };
        gpu.run("sample_parts", bindings, params, [count * parts], PARTS);
        const chosen = { tokens: slice(tokens, first, count), logProbs: slice(logProbs, first, count) };
        gpu.run("sample", { ...bindings, ...chosen }, params, [count], width);
      });
    });
  }
}
