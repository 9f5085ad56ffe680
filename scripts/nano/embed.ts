/**
 * Writes a model directory and dialogues into `src/nano/*.gen.ts`, where an import finds them without
 * any permission.
 *
 * @module
 */
import { type Dialogue, toJsonLines } from "./dialogues.ts";

const MADE = "// Made by `deno task nano`; not to be edited.\n// deno-fmt-ignore-file\n";
const FILES = ["config.json", "vocab.json", "merges.txt", "model.safetensors"];

/**
 * Embeds nano.
 *
 * @param directory The model, in Hugging Face's format.
 * @param training Dialogues to tune it on.
 * @param held Others to test it with.
 */
export async function embed(
  directory: string,
  training: readonly Dialogue[],
  held: readonly Dialogue[],
): Promise<void> {
  const files: string[] = [];
  for (const name of FILES) {
    const content = await pack(await Deno.readFile(`${directory}/${name}`));
    files.push(`  ${JSON.stringify(name)}: ${JSON.stringify(content)},\n`);
  }
  await write(
    "model.gen.ts",
    `/** Nano's files, gzip in base64. */
export const FILES: Readonly<Record<string, string>> = {\n${files.join("")}};
`,
  );
  await write(
    "dialogues.gen.ts",
    `/** Dialogues to tune nano on: JSON lines, gzip in base64. */
export const TRAINING: string = ${JSON.stringify(await pack(toJsonLines(training)))};
/** Others of the same kinds. */
export const HELD: string = ${JSON.stringify(await pack(toJsonLines(held)))};
`,
  );
}

async function write(name: string, content: string): Promise<void> {
  await Deno.writeTextFile(new URL(`../../src/nano/${name}`, import.meta.url), MADE + content);
}

/** Gzip in base64. */
async function pack(content: string | Uint8Array<ArrayBuffer>): Promise<string> {
  const stream = new Blob([content]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer()).toBase64();
}
