/**
 * A model's parameters on their way from a checkpoint into a backend's memory: found, read in one pass, placed.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import type { Checkpoint } from "../format/checkpoint.ts";
import type { Backend } from "../tensor/backend.ts";
import { dequantize } from "../tensor/stored.ts";
import type { Matrix, StoredMatrix, WeightFormat } from "../tensor/tensor.ts";
import { assemble, findMatrices, type MatrixEntry } from "./quantized.ts";
import { isMatrix, summedAxis } from "./transformer.ts";

/** A parameter in a checkpoint. */
export interface Found {
  /** The parameter's name. */
  readonly name: string;
  /** Its shape. */
  readonly shape: readonly number[];
  /** The name that it has there. */
  readonly stored: string;
  /** How it is stored, unless as a plain tensor. */
  readonly matrix?: MatrixEntry;
}

/** A parameter's numbers as they come: plain, or as a file has them. */
export type Values =
  & { readonly name: string; readonly shape: readonly number[] }
  & ({ readonly values: Float32Array } | { readonly stored: StoredMatrix });

/** How checkpoints of a kind of model name what they hold. */
export interface Naming {
  /** What messages call the kind. */
  readonly kind: string;
  /** The parameter's name by the name that a checkpoint has for it. */
  readonly canonical: (stored: string) => string;
  /** Names of tensors that may be there beside the parameters and are passed over, though they look like some. */
  readonly beside: RegExp;
  /** Names that look like parameters: a tensor of such a name that is none is an error. */
  readonly own: RegExp;
}

/** GPT-2's names, with and without `transformer.`; beside them causal masks that old versions saved. */
const GPT2_NAMES: Naming = {
  kind: "GPT-2",
  canonical: (stored) => stored.replace(/^transformer\./, ""),
  beside: /^h\.\d+\.attn\.(masked_)?bias$/,
  own: /^(h|ln_f|wte|wpe)\./,
};

/**
 * Finds a model's parameters, and that all are there in their shapes.
 *
 * @param checkpoint Where.
 * @param shapes The parameters' shapes by name.
 * @param source What messages call the model.
 * @param naming How its tensors are named [as GPT-2's].
 * @throws {WhetError} `format` if one is missing, there twice, or not as it should be.
 */
export function findParameters(
  checkpoint: Checkpoint,
  shapes: ReadonlyMap<string, readonly number[]>,
  source: string,
  naming: Naming = GPT2_NAMES,
): Found[] {
  const matrices = findMatrices(checkpoint);
  const parts = new Set(
    [...matrices.values()].flatMap(({ tensors: { scales, minima } }) => [scales, minima]),
  );
  const found = new Map<string, Found>();
  for (const stored of checkpoint.names()) {
    if (parts.has(stored)) continue;
    const name = naming.canonical(stored);
    const shape = shapes.get(name);
    if (!shape) {
      refuseForeign(name, stored, shapes, source, naming);
      continue;
    }
    const other = found.get(name);
    if (other) {
      throw new WhetError("format", `${source}: ${other.stored} and ${stored} are the same parameter`);
    }
    const matrix = matrices.get(stored);
    const actual = matrix ? [matrix.rows, matrix.columns] : checkpoint.shape(stored);
    if (actual.join() !== shape.join()) {
      throw new WhetError(
        "format",
        `${source}: tensor ${stored} is [${actual.join(", ")}]; by config.json it should be [${
          shape.join(", ")
        }]`,
      );
    }
    found.set(name, { name, shape, stored, matrix });
  }
  const missing = [...shapes.keys()].filter((name) => !found.has(name));
  if (missing.length > 0) {
    const more = missing.length > 1 ? ` and ${missing.length - 1} more` : "";
    throw new WhetError(
      "format",
      `${source}: tensor ${missing[0]}${more} is missing; the checkpoint is not whole`,
    );
  }
  return [...found.values()];
}

/** Refuses a tensor that is no parameter, but looks like one; other heads are passed over. */
function refuseForeign(
  name: string,
  stored: string,
  shapes: ReadonlyMap<string, readonly number[]>,
  source: string,
  { kind, beside, own }: Naming,
): void {
  if (beside.test(name)) return;
  if (shapes.has(name.replace(/\.(scales|minima)$/, ""))) {
    throw new WhetError(
      "format",
      `${source}: tensor ${stored} belongs to a quantised matrix, but the file's metadata has no note that says ` +
        "how; save the model again",
    );
  }
  if (own.test(name)) {
    throw new WhetError(
      "format",
      `${source}: tensor ${stored} has no place in the ${kind} that config.json describes`,
    );
  }
}

/**
 * How a checkpoint's matrices are stored, as its notes say; undefined without.
 *
 * @throws {WhetError} `option` if not all in the same way.
 */
export function storedFormat(parameters: readonly Found[], source: string): WeightFormat | undefined {
  const [format, other] = new Set(parameters.flatMap(({ matrix }) => matrix ? [matrix.format] : []));
  if (other === undefined) return format;
  throw new WhetError(
    "option",
    `weights: ${source} has some stored as ${format} and some as ${other}; say which of them all are to be`,
  );
}

/**
 * Reads parameters: the largest first where any order costs the same, so that large stretches of memory are free again when
 * most are placed; over HTTP in the order of the files, one pass through each. There the scales of quantised matrices come
 * before all codes, for which they wait in memory; as the waiting grow fewer, those in place grow more.
 *
 * @param weights How they will be stored.
 * @returns One after the other; stored numbers are there until the next are asked for.
 */
export async function* readParameters(
  checkpoint: Checkpoint,
  parameters: readonly Found[],
  weights: WeightFormat,
  signal?: AbortSignal,
): AsyncGenerator<Values, void> {
  const owners = new Map<string, Found>();
  for (const parameter of parameters.toSorted((a, b) => elements(b.shape) - elements(a.shape))) {
    const tensors = parameter.matrix?.tensors ?? { codes: parameter.stored };
    for (const tensor of Object.values(tensors)) owners.set(tensor, parameter);
  }
  const read = async (tensor: string) => {
    signal?.throwIfAborted();
    const owner = owners.get(tensor)!;
    // Halves become f32 and other formats as any plain tensor's do.
    const asStored = owner.matrix && (owner.matrix.format !== "f16" || weights === "f16");
    return asStored
      ? { tensor, owner, matrix: owner.matrix!, bytes: await checkpoint.readBytes(tensor) }
      : { tensor, owner, values: await checkpoint.readF32(tensor) };
  };
  const waiting = new Map<Found, Map<string, Uint8Array<ArrayBuffer>>>();
  const order = checkpoint.sequential ? checkpoint.inFileOrder(owners.keys()) : [...owners.keys()];
  for await (const part of ahead(order, read)) {
    const { tensor, owner } = part;
    const { name, shape } = owner;
    if (part.values) {
      yield { name, shape, values: part.values };
      continue;
    }
    const parts = waiting.get(owner) ?? new Map<string, Uint8Array<ArrayBuffer>>();
    waiting.set(owner, parts.set(tensor, part.bytes));
    if (parts.size < Object.keys(part.matrix.tensors).length) continue;
    waiting.delete(owner);
    yield { name, shape, stored: assemble(part.matrix, parts) };
    for (const bytes of parts.values()) letGo(bytes); // Placed by now.
  }
}

/** How many numbers a parameter of a shape has. */
export function elements(shape: readonly number[]): number {
  return shape.reduce((product, extent) => product * extent, 1);
}

/** What `read` gives for one item after the other; while one is worked with, the next is being read. */
async function* ahead<Item, Result>(
  items: readonly Item[],
  read: (item: Item) => Promise<Result>,
): AsyncGenerator<Result> {
  const begin = (i: number) => {
    const reading = i < items.length ? read(items[i]) : undefined;
    reading?.catch(() => {}); // Whoever waits for it hears of it.
    return reading;
  };
  let reading = begin(0);
  try {
    for (let i = 0; reading; i++) {
      const result: Result = await reading;
      reading = begin(i + 1);
      yield result;
    }
  } finally {
    await reading?.catch(() => {}); // Before its file is closed.
  }
}

/**
 * Places parameters one by one as they come: all, or none if one fails, also where a device tells of it later.
 *
 * @param weights How those that are frozen are stored.
 * @param source Gives them.
 */
export async function placeAll(
  backend: Backend,
  weights: WeightFormat,
  source: AsyncIterable<Values>,
): Promise<Map<string, Matrix>> {
  const parameters = new Map<string, Matrix>();
  try {
    for await (const parameter of source) {
      parameters.set(parameter.name, named(parameter.name, () => place(backend, weights, parameter)));
      if ("values" in parameter) letGo(parameter.values);
    }
    await settled(backend);
    return parameters;
  } catch (error) {
    for (const parameter of parameters.values()) backend.free(parameter);
    throw error;
  }
}

/** Frees numbers that were placed, at once: the collector would let hundreds of MB of them gather. */
export function letGo({ buffer }: Float32Array | Uint8Array): void {
  if (buffer instanceof ArrayBuffer && !buffer.detached) buffer.transfer(0);
}

/** Runs work; where a weight does not fit into its format, the error says which. */
function named<Result>(name: string, work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof WhetError) || error.code !== "format") throw error;
    throw new WhetError("format", `${name}: ${error.message}`, { cause: error });
  }
}

/** Waits for what was placed: what a device, or the worker that it lives in, refuses of that, a read throws. */
export async function settled(backend: Backend): Promise<void> {
  const nothing = backend.allocate([1]);
  try {
    await backend.read(nothing);
  } finally {
    backend.free(nothing);
  }
}

function place(backend: Backend, weights: WeightFormat, parameter: Values): Matrix {
  const { name, shape } = parameter;
  const frozen = isMatrix(name);
  if ("stored" in parameter && frozen && parameter.stored.format === weights) {
    return backend.packStored(parameter.stored);
  }
  const values = "stored" in parameter ? dequantize(parameter.stored) : parameter.values;
  if (!frozen) return backend.upload(values, shape);
  return backend.pack(values, shape[0], shape[1], weights, summedAxis(name));
}
