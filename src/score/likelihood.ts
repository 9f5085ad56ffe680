/**
 * How likely a model finds texts.
 *
 * @module
 */
import { type LanguageModel, ROWS_AT_ONCE } from "../model/language_model.ts";
import { endToEnd, groupByRows } from "../tensor/sequences.ts";
import { Ops } from "../tensor/ops.ts";

/**
 * The log-probability of every token given those before it.
 *
 * @param model The model, with its adapter if one is attached.
 * @param sequences Token ids, each sequence at most `n_positions` long.
 * @returns For each sequence natural logs, (length − 1); the first token has nothing before it.
 * @throws {WhetError} "option" where a token is not in the vocabulary or a sequence too long.
 */
export async function logProbs(
  model: LanguageModel,
  sequences: readonly (readonly number[])[],
): Promise<Float32Array[]> {
  model.network; // Throws if it was disposed.
  for (const [index, tokens] of sequences.entries()) model.checkTokens(tokens, `sequences[${index}]`);
  const results = sequences.map(({ length }) => new Float32Array(Math.max(0, length - 1)));
  const lengths = sequences.map(({ length }) => length < 2 ? 0 : length);
  for (const group of groupByRows(lengths, ROWS_AT_ONCE)) {
    const texts = group.map((index) => sequences[index]);
    const loss = await model.arena.scope(() => {
      const ops = new Ops(model.arena);
      const { rows, targets } = everyTarget(texts);
      const hidden = model.hiddenStates(ops, endToEnd(texts), rows);
      return model.backend.read(ops.crossEntropy(hidden, model.network.wte, model.arena.upload(targets), 0));
    });
    let at = 0;
    for (const index of group) {
      const part = results[index];
      for (let i = 0; i < part.length; i++) part[i] = -loss[at++];
    }
  }
  return results;
}

/** The rows that have a token after them, and those tokens. */
function everyTarget(sequences: readonly (readonly number[])[]): { rows: Uint32Array; targets: Uint32Array } {
  const rows: number[] = [];
  const targets: number[] = [];
  let start = 0;
  for (const sequence of sequences) {
    for (let i = 1; i < sequence.length; i++) {
      rows.push(start + i - 1);
      targets.push(sequence[i]);
    }
    start += sequence.length;
  }
  return { rows: Uint32Array.from(rows), targets: Uint32Array.from(targets) };
}
