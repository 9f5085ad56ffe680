/**
 * What a GPT-2 takes of a backend's memory, reckoned from its config alone.
 *
 * @module
 */
import type { MemoryNeed } from "../tensor/backend.ts";
import { codeBytes, isGrouped, scalesShape } from "../tensor/stored.ts";
import type { WeightFormat } from "../tensor/tensor.ts";
import type { GPT2Config } from "./config.ts";
import { isMatrix, parameterShapes, summedAxis } from "./transformer.ts";

/** Tokens of the least run that a model is loaded for: a short prompt and what comes of it. */
const LEAST_TOKENS = 256;

/**
 * Reckons what a model takes: its weights as they are stored, and what a sequence of 256 tokens needs beside.
 *
 * @param name What errors call the model.
 * @param config Its shape.
 * @param format How its matrices are stored; all else is f32.
 * @returns Bytes, as they are counted without any rounding of a backend's.
 */
export function memoryNeed(name: string, config: GPT2Config, format: WeightFormat): MemoryNeed {
  const { vocab_size: V, n_positions, n_embd: C, n_inner, n_layer } = config;
  let weights = 0;
  for (const [parameter, shape] of parameterShapes(config)) {
    weights += isMatrix(parameter)
      ? matrixBytes(format, shape[0], shape[1], summedAxis(parameter))
      : 4 * shape.reduce((product, extent) => product * extent, 1);
  }
  const T = Math.min(LEAST_TOKENS, n_positions);
  const cache = 2 * n_layer * T * C * (format === "f32" ? 4 : 2);
  const activations = 4 * T * (7 * C + n_inner); // x before and after, its norm, qkv (3C), what attention gives
  const tensors = [
    { name: "its position embedding", bytes: 4 * n_positions * C },
    { name: "the logits of one token", bytes: 4 * V },
  ];
  const [largest] = tensors.sort((a, b) => b.bytes - a.bytes);
  return { name, format, weights, working: cache + activations + 4 * V, largest };
}

/** Bytes of a matrix as it is stored. */
export function matrixBytes(format: WeightFormat, rows: number, columns: number, axis: 0 | 1): number {
  if (format === "f32") return 4 * rows * columns;
  const codes = codeBytes(format, rows, columns);
  if (!isGrouped(format)) return codes;
  const [groups, width] = scalesShape(rows, columns, axis);
  return codes + groups * width * 2 * (format === "q4" ? 2 : 1); // scales, and q4's minima, are halves at the least
}
