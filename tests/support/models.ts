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
