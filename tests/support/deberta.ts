/**
 * Small random reward models, whose numbers `tests/fixtures/deberta/make.py` makes too.
 *
 * @module
 */
import { safetensorsContent, type TensorToWrite } from "../../src/format/safetensors_write.ts";

/** A model of the fixtures. */
export interface DebertaCase {
  /** config.json. */
  config: Record<string, unknown>;
  /** Its tensors' shapes, by name. */
  shapes: Record<string, number[]>;
  /** What transformers makes of the pairs. */
  scores: number[];
}

/** expected.json. */
export interface Expected {
  pairs: { prompt: string; response: string; ids: number[] }[];
  cases: Record<string, DebertaCase>;
  saved: number[];
  buckets: [buckets: number, maxPosition: number, expected: number[]][];
}

export const FIXTURES = new URL("../fixtures/deberta/", import.meta.url);
export const EXPECTED: Expected = JSON.parse(await Deno.readTextFile(new URL("expected.json", FIXTURES)));

/** A permutation of 32-bit words that leaves no pattern (`lowbias32` of Chris Wellons). */
function mix(x: number): number {
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}

/** A tensor's numbers: evenly spread, norms about 1, matrices by their width. */
export function numbers(name: string, shape: readonly number[]): Float32Array {
  const seed = new TextEncoder().encode(name).reduce(
    (hash, byte) => Math.imul(hash ^ byte, 16777619),
    2166136261,
  );
  const product = (extents: readonly number[]) => extents.reduce((a, b) => a * b, 1);
  const spread = (even: number) => {
    if (name.includes("LayerNorm.weight")) return 1 + 0.5 * even;
    if (name.endsWith("bias")) return 0.5 * even;
    if (name.includes("embeddings")) return 2 * even;
    return even * 4 / Math.sqrt(product(shape.slice(1)));
  };
  return Float32Array.from({ length: product(shape) }, (_, i) => spread(mix(i + seed) / 2 ** 32 - 0.5));
}

/** Writes a model's directory into a fresh one; the tests remove it. */
export async function writeModel(
  { config, shapes }: Pick<DebertaCase, "config" | "shapes">,
  directory = "",
): Promise<string> {
  directory ||= await Deno.makeTempDir();
  await Deno.writeTextFile(`${directory}/config.json`, JSON.stringify(config));
  await Deno.copyFile(new URL("tokenizer.json", FIXTURES), `${directory}/tokenizer.json`);
  const tensors = Object.entries(shapes).map(([name, shape]): TensorToWrite => ({
    ...{ name, dtype: "F32", shape, data: () => Promise.resolve(numbers(name, shape)) },
  }));
  const content = ReadableStream.from(safetensorsContent(tensors));
  await Deno.writeFile(`${directory}/model.safetensors`, content);
  return directory;
}

/** Runs work with a model's directory, which is gone afterwards. */
export async function withModel(
  model: Pick<DebertaCase, "config" | "shapes">,
  work: (directory: string) => Promise<void>,
): Promise<void> {
  const directory = await writeModel(model);
  try {
    await work(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}
