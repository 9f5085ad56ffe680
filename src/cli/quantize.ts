/**
 * `whet quantize`.
 *
 * @module
 */
import { join } from "../format/files.ts";
import type { QUANTIZE } from "./command_flags.ts";
import type { Values } from "./flags.ts";
import { openModel } from "./model.ts";
import { note } from "./output.ts";

/** What `--json` prints. */
export interface QuantizeResult {
  /** Where the model went. */
  out: string;
  /** How its weights are stored there. */
  weights: string;
  /** The bytes that they take. */
  bytes: number;
}

/** Stores a model's weights otherwise, matrix by matrix; see `QUANTIZE` for the flags. */
export async function runQuantize(values: Values<typeof QUANTIZE>): Promise<QuantizeResult> {
  const { out, quiet } = values;
  using model = await openModel(values.model, values);
  const { weights } = model;
  await model.save(out);
  const { size: bytes } = await Deno.stat(join(out, "model.safetensors"));
  if (!quiet) note(`${out} has the model in ${weights}: ${(bytes / 1e6).toPrecision(3)} MB`);
  return { out, weights, bytes };
}
