/**
 * `whet merge`.
 *
 * @module
 */
import { Lora } from "../model/lora.ts";
import type { MERGE } from "./command_flags.ts";
import type { Values } from "./flags.ts";
import { openModel } from "./model.ts";
import { note } from "./output.ts";

/** Folds an adapter into its model; see `MERGE` for the flags. */
export async function runMerge(values: Values<typeof MERGE>): Promise<{ out: string }> {
  const { adapter, out, quiet } = values;
  using model = await openModel(values.model, { ...values, adapter: undefined });
  using lora = await Lora.load(adapter);
  await model.merge(lora);
  await model.save(out);
  if (!quiet) note(`the merged model is in ${out}`);
  return { out };
}
