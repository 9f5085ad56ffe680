/** Quantised models' files that are not what they should be. */
import { assert, assertEquals } from "@std/assert";
import { createWasmBackend } from "../src/backend/wasm/backend.ts";
import { type ErrorCode, WhetError } from "../src/errors.ts";
import { GPT2 } from "../src/gpt2.ts";
import type { StoredMatrix } from "../src/tensor/tensor.ts";
import { failure, inTempDir } from "./support/models.ts";
import {
  FORMATS,
  readTensors,
  saveOdd,
  SEQUENCES,
  shard,
  type Tensors,
  WASM,
  writeTensors,
} from "./support/quantized.ts";

type Note = Record<string, unknown> & { matrices: Record<string, { shape: unknown; axis: unknown }> };

/** Changes a saved model's file. */
async function change(
  directory: string,
  edit: (tensors: Tensors, note: Note, metadata: Record<string, string>) => void,
): Promise<void> {
  const path = `${directory}/model.safetensors`;
  const { tensors, metadata } = await readTensors(path);
  const note = JSON.parse(metadata.whet);
  edit(tensors, note, metadata);
  if (metadata.whet !== undefined && !metadata.whet.startsWith("!")) metadata.whet = JSON.stringify(note);
  metadata.whet = metadata.whet?.replace("!", "");
  if (metadata.whet === undefined) delete metadata.whet;
  await writeTensors(path, tensors, metadata);
}

const WTE = "transformer.wte.weight", FC = "transformer.h.0.mlp.c_fc.weight";

/** What is wrong, in which format, the error's code and words, and how it comes to be. */
const BROKEN: [StoredMatrix["format"], ErrorCode, string[], Parameters<typeof change>[1]][] = [
  ["q8", "unsupported", ["version 2", "version 1"], (_, note) => note.version = 2],
  ["q8", "unsupported", ["version nothing"], (_, note) => delete note.version],
  ["q8", "format", ["metadata.whet", "not JSON"], (_, _note, metadata) => metadata.whet = "!{"],
  ["q8", "format", ["metadata.whet", "object"], (_, _note, metadata) => metadata.whet = "![1]"],
  ["q8", "format", ["weights: expected f16, q8 or q4", "q2"], (_, note) => note.weights = "q2"],
  ["q8", "format", ["group_size: expected 32, got 64"], (_, note) => note.group_size = 64],
  ["q8", "format", ["matrices: expected an object"], (_, note) => note.matrices = [] as never],
  ["q8", "format", ["matrices", WTE, "axis", "2"], (_, note) => note.matrices[WTE].axis = 2],
  ["q8", "format", ["shape: expected rows and columns"], (_, note) => note.matrices[WTE].shape = [51]],
  ["q8", "format", ["shape: expected rows and columns"], (_, note) => note.matrices[WTE].shape = [51, -33]],
  ["q8", "format", ["rows and columns"], (_, note) => note.matrices[WTE].shape = [2 ** 40, 2 ** 40]],
  ["q8", "format", ["rows and columns"], (_, note) => note.matrices[WTE] = null as never],
  ["q8", "format", [WTE, "I8 [33, 51]", "not I8 [51, 33]"], (_, note) => note.matrices[WTE].shape = [33, 51]],
  ["q4", "format", [WTE, "should be", "F32"], (_, note) => note.matrices[WTE].axis = 0],
  ["f16", "format", [WTE, "[33, 51]; by config.json"], (tensors, note) => {
    note.matrices[WTE].shape = [33, 51];
    Object.assign(tensors.get(WTE)!, { shape: [33, 51] });
  }],
  [
    "q4",
    "format",
    ["there is no tensor", "no\\nwhere"],
    (_, note) => note.matrices["no\nwhere"] = note.matrices[WTE],
  ],
  ["q8", "format", ["there is no tensor", `${FC}.scales`], (tensors) => tensors.delete(`${FC}.scales`)],
  ["q4", "format", ["there is no tensor", `${FC}.minima`], (tensors) => tensors.delete(`${FC}.minima`)],
  ["q4", "format", ["there is no tensor", FC], (tensors) => tensors.delete(FC)],
  ["q8", "format", ["quantised", "no note"], (_, note) => delete note.matrices[FC]],
  ["q8", "format", ["quantised", "no note"], (_, _note, metadata) => delete metadata.whet],
  ["f16", "format", [FC, "F16", "not F32"], (tensors) => widenInPlace(tensors, FC)],
  ["q8", "format", [FC, "should be I8"], (tensors) => Object.assign(tensors.get(FC)!, { dtype: "U8" })],
  ["q8", "format", [`${FC}.scales`, "[2, 41]"], (tensors) => {
    Object.assign(tensors.get(`${FC}.scales`)!, { shape: [41, 2] });
  }],
  ["q8", "format", [`tensor ${WTE}.scales`, "NaN"], (tensors) => setFloat(tensors, `${WTE}.scales`, NaN)],
  ["q8", "format", ["Infinity"], (tensors) => setFloat(tensors, `${WTE}.scales`, Infinity)],
  ["q4", "format", [`tensor ${FC}.minima`, "-70000"], (tensors) => setFloat(tensors, `${FC}.minima`, -70000)],
];

function setFloat(tensors: Tensors, name: string, value: number): void {
  new DataView(tensors.get(name)!.bytes.buffer).setFloat32(4, value, true);
}

function widenInPlace(tensors: Tensors, name: string): void {
  const { bytes, shape } = tensors.get(name)!;
  tensors.set(name, { dtype: "F32", shape, bytes: new Uint8Array(bytes.length * 2) });
}

Deno.test("files that are not what they say are refused by name, and nothing is left", () =>
  inTempDir(async (directory) => {
    using backend = await createWasmBackend({ threads: 1 });
    for (const format of FORMATS) await saveOdd(`${directory}/${format}`, format);
    for (const [format, code, words, edit] of BROKEN) {
      const path = `${directory}/${format}/model.safetensors`;
      const whole = await Deno.readFile(path);
      await change(`${directory}/${format}`, edit);
      await failure(code, [directory, ...words], () => GPT2.load(`${directory}/${format}`, { backend }))
        .catch((error) => {
          throw new Error(`${format} ${edit}: ${error.message}`);
        });
      assertEquals(backend.stats().allocations, 0);
      await Deno.writeFile(path, whole);
    }
  }));

Deno.test("whatever byte of the note is damaged: what is refused is refused in so many words", () =>
  inTempDir(async (directory) => {
    using backend = await createWasmBackend({ threads: 1 });
    await saveOdd(directory, "q4");
    const path = `${directory}/model.safetensors`;
    const whole = await Deno.readFile(path);
    const end = 8 + Number(new DataView(whole.buffer).getBigUint64(0, true));
    let refused = 0;
    for (let k = 0; k < 150; k++) {
      const damaged = whole.slice();
      const at = 8 + (k * 7919) % (end - 8);
      damaged[at] ^= 1 << (k % 7);
      await Deno.writeFile(path, damaged);
      try {
        using _ = await GPT2.load(directory, { backend });
      } catch (error) {
        assert(error instanceof WhetError && !error.message.includes("\n"), `byte ${at}: ${error}`);
        refused++;
      }
      assertEquals(backend.stats().allocations, 0, `byte ${at}`);
    }
    assert(refused > 75, `${refused} refused`);
  }));

Deno.test("matrices of two formats need to be told which one all are to have", () =>
  inTempDir(async (directory) => {
    const [one, other] = [`${directory}/one`, `${directory}/other`];
    await saveOdd(one, "q8");
    await saveOdd(other, "q4");
    await shard(one, (name) => name.includes("mlp"));
    await shard(other, (name) => name.includes("mlp"));
    // The second shard of the other, its note telling of its own matrices only, and this one's likewise.
    await Deno.copyFile(`${other}/model-2.safetensors`, `${one}/model-2.safetensors`);
    const weight_map: Record<string, string> = {};
    for (
      const [i, keeps] of [(name: string) => !name.includes("mlp"), (name: string) => name.includes("mlp")]
        .entries()
    ) {
      const path = `${one}/model-${i + 1}.safetensors`;
      const { tensors, metadata } = await readTensors(path);
      const note = JSON.parse(metadata.whet) as Note;
      for (const name of Object.keys(note.matrices)) if (!keeps(name)) delete note.matrices[name];
      await writeTensors(path, tensors, { whet: JSON.stringify(note) });
      for (const name of tensors.keys()) weight_map[name] = `model-${i + 1}.safetensors`;
    }
    await Deno.writeTextFile(`${one}/model.safetensors.index.json`, JSON.stringify({ weight_map }));
    await failure("option", ["weights", one, "q8", "q4"], () => GPT2.load(one, WASM));
    for (const weights of ["f32", "q8", "q4"] as const) {
      using model = await GPT2.load(one, { ...WASM, weights });
      assertEquals(model.weights, weights);
      await model.logits(SEQUENCES);
    }
  }));
