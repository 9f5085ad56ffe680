/**
 * Embeddings and their gradients.
 *
 * @module
 */
import type * as K from "../../tensor/backend.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Gpu } from "./gpu.ts";
import { rowRanges, rowSlice, weightParts } from "./weights.ts";
import { slice } from "./slices.ts";

/** out[t] = wte[tokens[t]] + wpe[positions[t]]; each part of wte serves the tokens that it holds. */
export function embedding(gpu: Gpu, args: K.EmbeddingArgs): void {
  const [T, C] = args.out.shape;
  const { variant, parts } = weightParts(gpu, args.wte);
  for (const { first, bindings, params } of parts) {
    gpu.run(
      "embedding",
      {
        ...bindings,
        wpe: slice(args.wpe),
        tokens: slice(args.tokens),
        positions: slice(args.positions),
        out: slice(args.out),
      },
      { T, firstRow: first, ...params },
      [Math.ceil(T * Math.ceil(C / 4) / 256)],
      variant,
    );
  }
}

/** Adds dOut's rows to those of the tables' gradients, in the order of t. */
export function embeddingBackward(gpu: Gpu, args: K.EmbeddingBackwardArgs): void {
  const { tokens, positions, dOut, dWte, dWpe } = args;
  if (dWte) addRows(gpu, tokens, dOut, dWte);
  if (dWpe) addRows(gpu, positions, dOut, dWpe);
}

function addRows(gpu: Gpu, rows: Tensor, dOut: Tensor, dTable: Tensor): void {
  const [T, C] = dOut.shape;
  for (const range of rowRanges(gpu, dTable.shape[0], C)) {
    gpu.run(
      "embedding_backward",
      { rows: slice(rows), dOut: slice(dOut), dTable: rowSlice(dTable, range) },
      { T, C, firstRow: range.first, tableRows: range.rows },
      [T],
    );
  }
}
