/**
 * Small quantised models in files, to be looked into and changed.
 *
 * @module
 */
import { Safetensors, type TensorToWrite, writeSafetensors } from "../../src/format/safetensors.ts";
import { openRepository } from "../../src/format/source.ts";
import { GPT2 } from "../../src/gpt2.ts";
import type { GPT2Shape } from "../../src/model/config.ts";
import { parameterShapes } from "../../src/model/transformer.ts";
import type { Backend } from "../../src/tensor/backend.ts";
import type { StoredMatrix } from "../../src/tensor/tensor.ts";

/** The formats. */
export const FORMATS = ["f16", "q8", "q4"] as const;
/** What logits are compared of. */
export const SEQUENCES = [[3, 1, 4, 1, 5, 9, 2, 6], [20, 0]];
/** Where the same bits come out everywhere. */
export const WASM = { backend: "wasm", instructionSet: "strict", threads: 1 } as const;
/** Rows of an odd length, which in q4 end within a byte, and no multiple of 32. */
export const ODD: GPT2Shape = {
  vocab_size: 51,
  n_positions: 10,
  n_embd: 33,
  n_head: 3,
  n_layer: 1,
  n_inner: 41,
};

/** A tensor of a file, to be changed. */
export type Tensors = Map<string, Omit<TensorToWrite, "name" | "data"> & { bytes: Uint8Array<ArrayBuffer> }>;

/** All that a file holds. */
export async function readTensors(
  path: string,
): Promise<{ tensors: Tensors; metadata: Record<string, string> }> {
  const [, directory, name] = path.match(/(.*)\/(.*)/)!;
  using file = await Safetensors.open((await (await openRepository(directory)).open(name))!);
  const tensors: Tensors = new Map();
  for (const name of file.names()) {
    const { dtype, shape } = file.info(name);
    tensors.set(name, { dtype, shape, bytes: await file.readBytes(name) });
  }
  return { tensors, metadata: { ...file.metadata } };
}

/** Writes a file anew. */
export async function writeTensors(
  path: string,
  tensors: Tensors,
  metadata: Record<string, string>,
): Promise<void> {
  await writeSafetensors(
    path,
    [...tensors].map(([name, { bytes, ...tensor }]) => ({ name, ...tensor, data: () => bytes })),
    metadata,
  );
}

/** Saves a model of {@linkcode ODD} sizes, and tells what it computes and holds. */
export async function saveOdd(directory: string, weights: StoredMatrix["format"], backend?: Backend) {
  using model = await GPT2.random(ODD, { ...WASM, ...(backend ? { backend } : {}), weights });
  await model.save(directory);
  const parameters = new Map<string, Float32Array>();
  for (const name of parameterShapes(model.config).keys()) {
    parameters.set(name, await model.parameter(name));
  }
  return { logits: await model.logits(SEQUENCES), parameters };
}

/** The logits of a model as it is loaded. */
export async function logitsOf(source: string): Promise<Float32Array[]> {
  using model = await GPT2.load(source, WASM);
  return await model.logits(SEQUENCES);
}

/** Cuts a saved model's file in two, by tensors. */
export async function shard(
  directory: string,
  isSecond: (name: string) => boolean,
  notes = [true, true],
): Promise<void> {
  const { tensors, metadata } = await readTensors(`${directory}/model.safetensors`);
  const weight_map: Record<string, string> = {};
  for (const [i, note] of notes.entries()) {
    const name = `model-${i + 1}.safetensors`;
    const own = new Map([...tensors].filter(([tensor]) => isSecond(tensor) === (i === 1)));
    for (const tensor of own.keys()) weight_map[tensor] = name;
    await writeTensors(`${directory}/${name}`, own, note ? metadata : { format: "pt" });
  }
  await Deno.writeTextFile(`${directory}/model.safetensors.index.json`, JSON.stringify({ weight_map }));
  await Deno.remove(`${directory}/model.safetensors`);
}
