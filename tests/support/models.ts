/**
 * Small models for tests: the fixtures of `tests/fixtures/parity`, whole or broken on purpose.
 *
 * @module
 */
import { assert, assertRejects } from "@std/assert";
import { type ErrorCode, WhetError } from "../../src/errors.ts";
import { openCheckpoint } from "../../src/format/checkpoint.ts";
import { writeSafetensors } from "../../src/format/safetensors.ts";
import { openRepository } from "../../src/format/source.ts";
import type { GPT2 } from "../../src/gpt2.ts";
import type { Lora } from "../../src/model/lora.ts";
import type { Backend } from "../../src/tensor/backend.ts";
import { candidates } from "./backends.ts";

/** A file or folder of the parity fixtures. */
export function fixture(name: string): string {
  return new URL(`../fixtures/parity/${name}`, import.meta.url).pathname;
}

/** Runs work with a directory that is gone afterwards. */
export async function inTempDir<Result>(work: (directory: string) => Promise<Result>): Promise<Result> {
  const directory = await Deno.makeTempDir();
  try {
    return await work(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Registers a test for every backend of {@linkcode candidates}, a fresh one each. */
export async function onEachBackend(claim: string, work: (backend: Backend) => Promise<void>): Promise<void> {
  for (const { name, ignore, create } of await candidates()) {
    Deno.test({
      name: `${name}: ${claim}`,
      ignore,
      async fn() {
        using backend = await create();
        await work(backend);
      },
    });
  }
}

/** The WhetError that work rejects with, of this code, with all these words in its one line. */
export async function failure(
  code: ErrorCode,
  words: readonly string[],
  work: () => PromiseLike<unknown>,
): Promise<WhetError> {
  const error = await assertRejects(work, WhetError);
  check(error, code, words);
  return error;
}

/** As {@linkcode failure}, of work that throws. */
export function failing(code: ErrorCode, words: readonly string[], work: () => unknown): WhetError {
  try {
    work();
  } catch (error) {
    assert(error instanceof WhetError, `expected a WhetError, got ${error}`);
    check(error, code, words);
    return error;
  }
  throw new Error(`expected a WhetError about ${words}`);
}

function check(error: WhetError, code: ErrorCode, words: readonly string[]): void {
  assert(error.code === code, `expected code ${code}, got ${error.code}: ${error.message}`);
  assert(!error.message.includes("\n"), `more than one line: ${error.message}`);
  for (const word of words) {
    assert(error.message.includes(word), `expected ${JSON.stringify(word)} in: ${error.message}`);
  }
}

/** One tensor of a checkpoint. */
export interface StoredTensor {
  shape: readonly number[];
  values: Float32Array;
}

/** A model directory's content, to be changed and written. */
export interface ModelFiles {
  config: Record<string, unknown>;
  tensors: Map<string, StoredTensor>;
}

/** Reads a fixture. */
export async function readModel(name: string): Promise<ModelFiles> {
  const directory = fixture(`${name}/model`);
  using checkpoint = await openCheckpoint(await openRepository(directory));
  const tensors = new Map<string, StoredTensor>();
  for (const stored of checkpoint.names()) {
    tensors.set(stored, { shape: checkpoint.shape(stored), values: await checkpoint.readF32(stored) });
  }
  return { config: JSON.parse(await Deno.readTextFile(`${directory}/config.json`)), tensors };
}

/** Writes a model directory with a fixture's vocabulary, or none. */
export async function writeModel(
  directory: string,
  { config, tensors }: ModelFiles,
  { dtype = "F32", vocabulary = null }: { dtype?: "F32" | "F16" | "BF16"; vocabulary?: string | null } = {},
): Promise<void> {
  await Deno.mkdir(directory, { recursive: true });
  await Deno.writeTextFile(`${directory}/config.json`, JSON.stringify(config));
  await writeSafetensors(
    `${directory}/model.safetensors`,
    [...tensors].map(([name, { shape, values }]) => ({ name, dtype, shape, data: () => values })),
  );
  for (const file of vocabulary === null ? [] : ["vocab.json", "merges.txt"]) {
    await Deno.copyFile(fixture(`${vocabulary}/model/${file}`), `${directory}/${file}`);
  }
}

/** Gives an adapter values that matter: a new one's B is zero. */
export async function shake(lora: Lora, model: GPT2, size = 0.3): Promise<void> {
  const values = lora.bind(model.backend);
  let x = 1;
  for (const name of values.tensors.keys()) {
    const data = await values.read(name);
    values.write(name, data.map(() => ((x = (x * 48271) % 2147483647) / 2147483647 - 0.5) * size));
  }
}

/**
 * A model that recites: after a sequence of n tokens `script[n − 1]` is by far the likeliest, whatever
 * the tokens were. Its tokens are those of the fixture `d16`, and unnamed ones up to `vocabSize`.
 *
 * @param directory Where to write it.
 * @param script At most 40 tokens.
 * @param vocabSize V, at least 263.
 */
export async function writeReciting(
  directory: string,
  script: readonly number[],
  vocabSize = 263,
): Promise<void> {
  const C = 32;
  const files = await readModel("d16");
  files.config.vocab_size = vocabSize;
  // Directions of equal length and mean 0: each is most like itself, also after normalisation.
  const wte = new Float32Array(vocabSize * C);
  let x = 1;
  for (let v = 0; v < vocabSize; v++) {
    const row = Array.from({ length: C }, () => (x = (x * 48271) % 2147483647) / 2147483647);
    const mean = row.reduce((a, b) => a + b) / C;
    const norm = Math.hypot(...row.map((value) => value - mean));
    wte.set(row.map((value) => 2 * (value - mean) / norm), v * C);
  }
  const wpe = new Float32Array(40 * C);
  for (const [position, token] of script.entries()) {
    wpe.set(wte.subarray(token * C, (token + 1) * C).map((value) => 100 * value), position * C);
  }
  for (const [name, tensor] of files.tensors) {
    // Blocks add nothing; the last normalisation is the identity's.
    if (/c_proj\.(weight|bias)$/.test(name)) tensor.values.fill(0);
    if (name === "ln_f.weight") tensor.values.fill(1);
    if (name === "ln_f.bias") tensor.values.fill(0);
  }
  files.tensors.set("wte.weight", { shape: [vocabSize, C], values: wte });
  files.tensors.set("wpe.weight", { shape: [40, C], values: wpe });
  await writeModel(directory, files, { vocabulary: "d16" });
}
