/**
 * What a study is of: all that decides its figures and answers, small enough to stand in a file.
 *
 * @module
 */
import type { Dialogues } from "../data/dialogues.ts";
import type { GPT2 } from "../gpt2.ts";
import type { Lora } from "../model/lora.ts";
import { parameterShapes } from "../model/transformer.ts";
import { identifyData } from "../train/identity.ts";
import { checkTrainOptions, fingerprint, type TrainOptions } from "../train/options.ts";
import { VERSION } from "../version.ts";
import type { AnswerSampling, HeldOut } from "./study_parts.ts";

/** What {@linkcode identifyStudy} takes. */
export interface StudySetup {
  /** The model, without any adapter. */
  model: GPT2;
  /** What is trained on. */
  data: Dialogues;
  /** What is held out. */
  held: Dialogues;
  /** The adapter that is given; null where one is trained. */
  adapter: Lora | null;
  /** The training's options. */
  training: TrainOptions;
  /** How held-out data are cut. */
  how: HeldOut;
  /** How many questions are asked. */
  questions: number;
  /** How they are answered. */
  sampling: AnswerSampling;
  /** Seed of everything random. */
  seed: number;
}

/**
 * Tells studies apart. The judge is not in it: it may be given later, for the same answers.
 *
 * @param setup Model, data, settings.
 * @returns Settings and digests by name; JSON.
 */
export async function identifyStudy(setup: StudySetup): Promise<Record<string, unknown>> {
  const { model, data, held, adapter, training, how, questions, sampling, seed } = setup;
  const { description, name } = model.backend;
  const checked = checkTrainOptions(model, training);
  return {
    whet: VERSION,
    // Threads change no bit, instruction sets do.
    backend: name === "wasm" ? description.split(", ").slice(0, 2).join(", ") : description,
    model: { weights: model.weights, config: model.config, digest: await digestModel(model) },
    ...(adapter
      ? { adapter: await digestAdapter(model, adapter), evaluation: how }
      : { training: { ...await fingerprint(model, data, checked), evalEvery: checked.evalEvery } }),
    heldOut: identifyData(held),
    ...{ questions, answers: sampling, seed },
  };
}

/** SHA-256 of the position embeddings, the first and the last layer: any tuning, and any merged adapter, changes one. */
async function digestModel(model: GPT2): Promise<string> {
  const last = `h.${model.config.n_layer - 1}.`;
  const names = [...parameterShapes(model.config).keys()].filter((name) =>
    name === "wpe.weight" || name.startsWith("h.0.") || name.startsWith(last)
  );
  const values: [string, Float32Array][] = [];
  for (const name of names) values.push([name, await model.parameter(name)]);
  return await digest(values);
}

/**
 * Tells adapters apart.
 *
 * @param model A model that it fits.
 * @param lora The adapter.
 * @returns SHA-256 of its values and scaling, in hexadecimal digits.
 * @throws {WhetError} "mismatch" where it is for another model.
 */
export async function digestAdapter(model: GPT2, lora: Lora): Promise<string> {
  lora.checkFits(model);
  const placed = lora.place(model.backend);
  const values: [string, Float32Array][] = [];
  for (const name of [...placed.tensors.keys()].sort()) values.push([name, await placed.read(name)]);
  for (const name of [...lora.modules.keys()].sort()) {
    values.push([name, Float32Array.of(lora.modules.get(name)!.scaling)]);
  }
  return await digest(values);
}

async function digest(values: readonly [string, Float32Array][]): Promise<string> {
  const parts = values.flatMap(([name, { buffer, byteOffset, byteLength }]) => [
    new TextEncoder().encode(`${name}\n`),
    new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength),
  ]);
  const hash = await crypto.subtle.digest("SHA-256", await new Blob(parts).arrayBuffer());
  return Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
