/**
 * What a study trains on and what it holds out.
 *
 * @module
 */
import type { Dialogues } from "../data/dialogues.ts";
import { WhetError } from "../errors.ts";
import type { Lora } from "../model/lora.ts";
import { formatNumber as count } from "./text.ts";

/**
 * Tells what is trained on from what is held out.
 *
 * @param options The study's.
 * @returns Both, and how the report calls them.
 * @throws {WhetError} "option" where nothing can be held out.
 */
export async function readData(
  { data, evalData, adapter }: { data?: Dialogues; evalData?: Dialogues; adapter?: Lora },
): Promise<{ data: Dialogues; held: Dialogues; description: string }> {
  const describe = (trained: string, held: string) => adapter ? held : `${trained}, ${held}`;
  const others = (n: number) => adapter ? `${count(n)} examples, held out` : `${count(n)} others held out`;
  if (!data && adapter && evalData) {
    return { data: evalData, held: evalData, description: others(evalData.length) };
  }
  if (!data) {
    const { nanoDialogues } = await import("../nano/nano.ts");
    const { training, held } = await nanoDialogues();
    const kept = evalData ?? held;
    const description = describe(
      `${count(training.length)} dialogues that are part of Whet`,
      adapter ? `${count(kept.length)} dialogues that are part of Whet, held out` : others(kept.length),
    );
    return { data: training, held: kept, description };
  }
  if (evalData) {
    return {
      data,
      held: evalData,
      description: describe(`${count(data.length)} examples`, others(evalData.length)),
    };
  }
  const kept = data.length - Math.max(1, Math.round(data.length / 10));
  if (kept < 1) {
    throw new WhetError(
      "option",
      "data: a single example leaves nothing to hold out; give more, or evalData (--eval-data)",
    );
  }
  const rest = data.length - kept;
  return {
    data: data.slice(0, kept),
    held: data.slice(kept),
    description: describe(`${count(kept)} examples`, `the last ${count(rest)} of the data held out`),
  };
}
