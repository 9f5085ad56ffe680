/**
 * What a DeBERTa takes of a backend's memory, reckoned from its config alone.
 *
 * @module
 */
import type { MemoryNeed } from "../tensor/backend.ts";
import type { WeightFormat } from "../tensor/tensor.ts";
import { debertaShapes } from "./deberta.ts";
import type { DebertaConfig } from "./deberta_config.ts";
import { relativeRows } from "./deberta_positions.ts";
import { matrixBytes } from "./memory.ts";

/**
 * Reckons what a model takes: its weights as they are stored, its projected positions, and what a pair of the longest
 * length needs beside.
 *
 * @param name What errors call the model.
 * @param config Its shape.
 * @param format How its matrices are stored; all else is f32.
 * @param longest The longest pair.
 */
export function debertaMemoryNeed(
  name: string,
  config: DebertaConfig,
  format: WeightFormat,
  longest: number,
): MemoryNeed {
  const { hidden_size: C, intermediate_size, num_hidden_layers, relative_attention, pos_att_type } = config;
  let weights = 0;
  for (const [, [rows, columns = 1, taps = 1]] of debertaShapes(config)) {
    weights += columns > 1 ? taps * matrixBytes(format, rows, columns, 1) : 4 * rows;
  }
  const positions = relative_attention ? 4 * relativeRows(config, longest).count * C : 0;
  weights += num_hidden_layers * pos_att_type.length * positions;
  const inner = 4 * longest * intermediate_size;
  // x before and after, query, key and value (3C), what attention gives, the sum with the residual; inner twice.
  const working = 4 * longest * 7 * C + 2 * inner;
  const largest = inner > positions
    ? { name: "the inner activations of a pair", bytes: inner }
    : { name: "a layer's relative positions", bytes: positions };
  return { name, format, weights, working, largest };
}
