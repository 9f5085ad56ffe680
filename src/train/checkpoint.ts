/**
 * A training run's state in one file, written whole or not at all, from which it goes on as if it had
 * never stopped: weights, AdamW's moments, and where in the data it was.
 *
 * @module
 */
import type { BatchState } from "../data/batches.ts";
import { WhetError } from "../errors.ts";
import { ensureDirectory, explainFileError, join } from "../format/files.ts";
import { Safetensors, type TensorToWrite, writeSafetensors } from "../format/safetensors.ts";
import { LocalRepository } from "../format/source_local.ts";
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
 * Removes a checkpoint, if there is one: a run that begins anew must not be taken up where another was.
 *
 * @param directory Where {@linkcode saveCheckpoint} wrote it.
 * @throws {WhetError} "resource" where permission is missing.
 */
export async function removeCheckpoint(directory: string): Promise<void> {
  const path = join(directory, CHECKPOINT_FILE);
  try {
    await Deno.remove(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return;
    throw explainFileError(error, "write", path);
  }
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
  const repository = await LocalRepository.open(directory, {});
  const source = await repository?.open(CHECKPOINT_FILE);
  if (!source) return null;
  try {
    const file = await Safetensors.open(source);
    const state = readState(file.metadata, source.name);
    const differs = difference(state.settings, settings);
    if (differs) {
      const [name, before, now] = differs;
      throw new WhetError(
        "mismatch",
        `${source.name} is of a run with ${name} ${JSON.stringify(before)}, this one has ${
          JSON.stringify(now)
        }; use the same settings, or begin anew`,
      );
    }
    const parts = Object.entries(kinds(optimizer)).flatMap(([kind, parameters]) =>
      parameters.layout.specs.map(({ name, shape }) => ({
        stored: `${kind}:${name}`,
        parameters,
        name,
        shape,
      }))
    );
    const unfit = parts.find(({ stored, shape }) =>
      !file.has(stored) || file.info(stored).shape.join() !== shape.join()
    );
    if (unfit) {
      throw new WhetError(
        "mismatch",
        `${source.name} does not fit this model: ${unfit.stored} is missing or of another size`,
      );
    }
    for (const { stored, parameters, name } of parts) parameters.write(name, await file.readF32(stored));
    return state;
  } catch (error) {
    if (!(error instanceof WhetError) || error.code !== "format") throw error;
    const message = `${error.message.replace(/[;,] fetch it again$/, "")}; remove it to begin anew`;
    throw new WhetError("format", message, { cause: error });
  } finally {
    source.close();
  }
}

/** The first setting that differs, by a name such as `lora.rank`, and both its values. */
export function difference(before: unknown, now: unknown, name = ""): [string, unknown, unknown] | null {
  if (!isRecord(before) || !isRecord(now)) {
    return JSON.stringify(before) === JSON.stringify(now) ? null : [name, before, now];
  }
  for (const key of Object.keys({ ...now, ...before })) {
    const found = difference(before[key], now[key], name === "" ? key : `${name}.${key}`);
    if (found) return found;
  }
  return null;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function readState(metadata: Readonly<Record<string, string>>, where: string): RunState {
  try {
    const state = JSON.parse(metadata.state);
    if (
      metadata.format === "whet-checkpoint" && Number.isSafeInteger(state.step) && isRecord(state.settings)
    ) {
      return state;
    }
  } catch {
    // Told below.
  }
  throw new WhetError("format", `${where}: not a checkpoint of Whet's`);
}
