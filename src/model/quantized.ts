/**
 * Frozen weights in safetensors files as they are computed with, so that a quantised model needs no f32 one.
 *
 * A matrix's codes stand under its own name: in q8 as I8 in its own shape; in q4 as U8 of one axis, two to a byte,
 * since rows of an odd length do not end at a byte's end; in f16 as F16, which every program reads. Its scales and,
 * in q4, minima stand beside as `NAME.scales` and `NAME.minima`, F32: a number is scale · code + minimum, and groups
 * of 32 along one axis share both. A note in the file's metadata, JSON under the key `whet`, says so:
 *
 * ```json
 * {"version":1,"weights":"q8","group_size":32,"matrices":{"transformer.wte.weight":{"shape":[50257,768],"axis":1}}}
 * ```
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import type { Checkpoint } from "../format/checkpoint.ts";
import { parseJsonObject } from "../format/json.ts";
import { quotedValue } from "../format/quote.ts";
import type { StoredDType, TensorToWrite } from "../format/safetensors.ts";
import { codeBytes, GROUP, LARGEST_HALF, scalesShape, type StoredFormat } from "../tensor/stored.ts";
import type { StoredMatrix } from "../tensor/tensor.ts";

/** The note's key in a file's metadata. */
const KEY = "whet";
/** The scheme that this module writes, and the only one that it reads. */
const VERSION = 1;

/** What a frozen matrix is before its numbers are there. */
export type MatrixInfo = Pick<StoredMatrix, "rows" | "columns" | "format" | "axis">;

/** The parts of a {@linkcode StoredMatrix} that are tensors of a file, and what follows a matrix's name in theirs. */
const PARTS = { codes: "", scales: ".scales", minima: ".minima" } as const;
type PartName = keyof typeof PARTS;

/** The parts that a matrix has: what the file says of each. */
function layout({ rows, columns, format, axis }: MatrixInfo): [PartName, StoredDType, number[]][] {
  if (format === "f16") return [["codes", "F16", [rows, columns]]];
  const scales: [PartName, StoredDType, number[]] = ["scales", "F32", scalesShape(rows, columns, axis)];
  if (format === "q8") return [["codes", "I8", [rows, columns]], scales];
  return [["codes", "U8", [codeBytes(format, rows, columns)]], scales, ["minima", "F32", scales[2]]];
}

// Writing

/**
 * The tensors that a file holds of a frozen matrix.
 *
 * @param name The matrix's name.
 * @param info What it is.
 * @param stored Gives its numbers; called once for each tensor.
 */
export function matrixTensors(
  name: string,
  info: MatrixInfo,
  stored: () => Promise<StoredMatrix>,
): TensorToWrite[] {
  return layout(info).map(([part, dtype, shape]) => ({
    name: name + PARTS[part],
    dtype,
    shape,
    data: async () => {
      const { buffer, byteOffset, byteLength } = (await stored())[part]!;
      return new Uint8Array(buffer, byteOffset, byteLength);
    },
  }));
}

/**
 * The metadata of a file that holds frozen matrices.
 *
 * @param format How they are stored.
 * @param matrices What each of them is, by name.
 */
export function matrixNote(
  format: StoredFormat,
  matrices: ReadonlyMap<string, MatrixInfo>,
): Record<string, string> {
  const note = {
    version: VERSION,
    weights: format,
    ...(format === "f16" ? {} : { group_size: GROUP }),
    matrices: Object.fromEntries(
      [...matrices].map(([name, { rows, columns, axis }]) => [name, { shape: [rows, columns], axis }]),
    ),
  };
  // transformers 4 refuses a format that it does not know, instead of taking codes for weights.
  return { format: format === "f16" ? "pt" : "whet", [KEY]: JSON.stringify(note) };
}

/**
 * What config.json says in `quantization_config` of a model whose codes other programs could take for weights: for
 * want of a `quant_method`, transformers refuses to load it (one that it does not know it would only warn of).
 *
 * @param format How the matrices are stored.
 * @returns The entry; null where there is no such danger.
 */
export function configNote(format: StoredFormat): Record<string, unknown> | null {
  if (format === "f16") return null;
  return { quantized_by: KEY, version: VERSION, weights: format, group_size: GROUP };
}

/** Whether a `quantization_config` is Whet's; what it says stands in the weights' own file, which counts. */
export function isConfigNote(note: unknown): boolean {
  return isRecord(note) && note.quantized_by === KEY;
}

// Reading

/** A frozen matrix that a checkpoint holds, and in which of its tensors. */
export interface MatrixEntry extends MatrixInfo {
  /** What messages call the file whose note tells of it. */
  readonly file: string;
  /** The tensors' names. */
  readonly tensors: Readonly<{ codes: string; scales?: string; minima?: string }>;
}

/**
 * Finds the matrices that a checkpoint's notes tell of, and checks that all of their parts are there as they should
 * be. No number is read yet.
 *
 * @param checkpoint The checkpoint.
 * @returns The matrices by name.
 * @throws {WhetError} `format`, if a note or a part is wrong; `unsupported`, if another version wrote it.
 */
export function findMatrices(checkpoint: Checkpoint): Map<string, MatrixEntry> {
  const found = new Map<string, MatrixEntry>();
  for (const { file, metadata } of checkpoint.notes()) {
    if (metadata[KEY] === undefined) continue;
    const where = `${file}: metadata.${KEY}`;
    for (const [name, info] of readNote(metadata[KEY], where)) {
      const entry = { ...info, file, tensors: locate(checkpoint, name, info, where) };
      const other = found.get(name);
      if (other && (other.format !== entry.format || other.axis !== entry.axis)) {
        throw new WhetError(
          "format",
          `${where}: another shard says otherwise of ${quotedValue(name)}; fetch both again`,
        );
      }
      found.set(name, entry);
    }
  }
  return found;
}

function readNote(text: string, where: string): [string, MatrixInfo][] {
  const { version, weights, group_size, matrices } = parseJsonObject(text, where);
  if (version !== VERSION) {
    throw new WhetError(
      "unsupported",
      `${where}: version ${quotedValue(version)} of the scheme for quantised weights; this Whet reads ` +
        `version ${VERSION}, take another`,
    );
  }
  const wrong = (field: string, expected: string, value: unknown) =>
    new WhetError("format", `${where}: ${field}: expected ${expected}, got ${quotedValue(value)}`);
  if (!isStoredFormat(weights)) throw wrong("weights", "f16, q8 or q4", weights);
  if (weights !== "f16" && group_size !== GROUP) throw wrong("group_size", `${GROUP}`, group_size);
  if (!isRecord(matrices)) throw wrong("matrices", "an object", matrices);
  return Object.entries(matrices).map(([name, entry]) => {
    const { shape, axis } = isRecord(entry) ? entry : {};
    const field = `matrices[${quotedValue(name)}]`;
    if (
      !Array.isArray(shape) || shape.length !== 2 || !shape.every((n) => Number.isSafeInteger(n) && n > 0) ||
      !Number.isSafeInteger(shape[0] * shape[1])
    ) {
      throw wrong(`${field}.shape`, "rows and columns", shape);
    }
    if (axis !== 0 && axis !== 1) throw wrong(`${field}.axis`, "0 or 1", axis);
    return [name, { rows: shape[0], columns: shape[1], format: weights, axis }];
  });
}

/** Names a matrix's tensors, when they are what the note says. */
function locate(
  checkpoint: Checkpoint,
  name: string,
  info: MatrixInfo,
  where: string,
): MatrixEntry["tensors"] {
  const tensors: { -readonly [Part in PartName]?: string } & { codes: string } = { codes: name };
  for (const [part, dtype, shape] of layout(info)) {
    const tensor = tensors[part] = name + PARTS[part];
    const { rows, columns, format } = info;
    const what = `${where}: ${quotedValue(name)} is ${format} of ${rows} × ${columns}`;
    if (!checkpoint.has(tensor)) {
      throw new WhetError(
        "format",
        `${what}, but there is no tensor ${quotedValue(tensor)}; the checkpoint is not whole`,
      );
    }
    const [type, extents] = [checkpoint.dtype(tensor), checkpoint.shape(tensor)];
    if (type === dtype && extents.join() === shape.join()) continue;
    throw new WhetError(
      "format",
      `${what}, so that tensor ${tensor} should be ${dtype} [${shape.join(", ")}], not ${type} [${
        extents.join(", ")
      }]; the file is damaged`,
    );
  }
  return tensors;
}

/**
 * Puts a matrix together from the bytes of its tensors. Codes are taken as they come: Whet writes none below −127, but −128
 * means what it says, and no kernel's sums overflow by it (to look for it took a twentieth of a start).
 *
 * @param entry The matrix.
 * @param bytes The tensors' bytes, by their names.
 * @throws {WhetError} `format`, if a number in them cannot be.
 */
export function assemble(
  { rows, columns, format, axis, file, tensors }: MatrixEntry,
  bytes: ReadonlyMap<string, Uint8Array<ArrayBuffer>>,
): StoredMatrix {
  const codes = bytes.get(tensors.codes)!;
  const floats = (part: PartName) => {
    const found = tensors[part] === undefined ? undefined : bytes.get(tensors[part]);
    if (!found) return undefined;
    const values = new Float32Array(found.buffer, found.byteOffset, found.length / 4);
    const limit = format === "q4" ? LARGEST_HALF : Number.MAX_VALUE;
    for (let i = 0; i < values.length; i++) {
      if (Math.abs(values[i]) <= limit) continue;
      throw new WhetError("format", `${file}: tensor ${tensors[part]} has ${values[i]}; it is damaged`);
    }
    return values;
  };
  return { rows, columns, format, axis, codes, scales: floats("scales"), minima: floats("minima") };
}

function isStoredFormat(value: unknown): value is StoredFormat {
  return value === "f16" || value === "q8" || value === "q4";
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
