/**
 * A training run's state in one file, written whole or not at all, from which it goes on as if it had
 * never stopped: weights, AdamW's moments, and where in the data it was.
 *
 * @module
 */
import type { BatchState } from "../data/batches.ts";
import { WhetError } from "../errors.ts";
import { ensureDirectory, join } from "../format/files.ts";
import { Safetensors, type TensorToWrite, writeSafetensors } from "../format/safetensors.ts";
import { openRepository } from "../format/source.ts";
import type { Parameters } from "../tensor/parameters.ts";
import type { AdamW } from "./optimizer.ts";

/** The checkpoint's file within its directory. */
export const CHECKPOINT_FILE = "checkpoint.safetensors";

/** What a checkpoint says beside its tensors. */
export interface RunState {
  /** Steps done. */
  step: number;
  /** Where the data stream is. */
  data: BatchState;
  /** The settings that decide what the steps do. */
  settings: Record<string, unknown>;
}

const KINDS = ["value", "m", "v"] as const;

function kinds(optimizer: AdamW): Record<typeof KINDS[number], Parameters> {
  return { value: optimizer.parameters, m: optimizer.m, v: optimizer.v };
}

/**
 * Writes a checkpoint; the one before stays until the new one is whole.
 *
 * @param directory Where; it is made.
 * @param optimizer Weights and moments.
 * @param state The rest.
 * @throws {WhetError} "resource" where the disk is full or permission is missing.
 */
export async function saveCheckpoint(directory: string, optimizer: AdamW, state: RunState): Promise<void> {
  await ensureDirectory(directory);
  const tensors: TensorToWrite[] = [];
  for (const [kind, parameters] of Object.entries(kinds(optimizer))) {
    for (const { name, shape } of parameters.layout.specs) {
      tensors.push({ name: `${kind}:${name}`, dtype: "F32", shape, data: () => parameters.read(name) });
    }
  }
  await writeSafetensors(join(directory, CHECKPOINT_FILE), tensors, {
    format: "whet-checkpoint",
    state: JSON.stringify(state),
  });
}

/**
 * Restores a run from its checkpoint.
 *
 * @param directory Where {@linkcode saveCheckpoint} wrote it.
 * @param optimizer Takes the weights and moments.
 * @param settings The settings of the run that goes on.
 * @returns Its state, or null where there is no checkpoint yet.
 * @throws {WhetError} "mismatch" if it is another run's, naming what differs; "format" if it is broken.
 */
export async function loadCheckpoint(
  directory: string,
  optimizer: AdamW,
  settings: Record<string, unknown>,
): Promise<RunState | null> {
  const exists = await Deno.stat(directory).then((info) => info.isDirectory, () => false);
  const source = exists ? await (await openRepository(directory)).open(CHECKPOINT_FILE) : null;
  if (!source) return null;
  try {
    const file = await Safetensors.open(source);
    const state = readState(file.metadata, source.name);
    for (const name of Object.keys({ ...settings, ...state.settings })) {
      const before = JSON.stringify(state.settings[name]), now = JSON.stringify(settings[name]);
      if (before === now) continue;
      throw new WhetError(
        "mismatch",
        `${source.name} is of a run with ${name} ${before}, this one has ${now}; use the same settings, or another directory`,
      );
    }
    for (const [kind, parameters] of Object.entries(kinds(optimizer))) {
      for (const { name, shape } of parameters.layout.specs) {
        const stored = `${kind}:${name}`;
        if (!file.has(stored) || file.info(stored).shape.join() !== shape.join()) {
          throw new WhetError(
            "mismatch",
            `${source.name} does not fit this model: ${stored} is missing or of another size`,
          );
        }
        parameters.write(name, await file.readF32(stored));
      }
    }
    return state;
  } finally {
    source.close();
  }
}

function readState(metadata: Readonly<Record<string, string>>, where: string): RunState {
  try {
    const state = JSON.parse(metadata.state);
    if (metadata.format === "whet-checkpoint" && Number.isSafeInteger(state.step) && state.settings) {
      return state;
    }
  } catch {
    // Told below.
  }
  throw new WhetError("format", `${where}: not a checkpoint of Whet's; remove it to begin anew`);
}
