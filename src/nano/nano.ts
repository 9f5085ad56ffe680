/**
 * The small GPT-2 that is part of Whet, and dialogues to tune it on; made by `deno task nano`, loaded
 * only when asked for.
 *
 * @module
 */
import { Dialogues } from "../data/dialogues.ts";
import { AnyRepository, type ByteSource, MemorySource } from "../format/repository.ts";

/** Files in memory. */
class MemoryRepository extends AnyRepository {
  readonly #files: ReadonlyMap<string, Uint8Array>;

  constructor(name: string, files: ReadonlyMap<string, Uint8Array>) {
    super(name);
    this.#files = files;
  }

  open(file: string): Promise<ByteSource | null> {
    const bytes = this.#files.get(file);
    return Promise.resolve(bytes ? new MemorySource(bytes, `${this.name}/${file}`, file) : null);
  }
}

/** Nano's files, as a model directory has them. */
export async function nanoRepository(): Promise<AnyRepository> {
  const { FILES } = await import("./model.gen.ts");
  const files = new Map<string, Uint8Array>();
  for (const [name, content] of Object.entries(FILES)) files.set(name, await unpack(content));
  return new MemoryRepository("nano", files);
}

/** Dialogues to tune nano on, and others of the same kinds to test it with. */
export async function nanoDialogues(): Promise<{ training: Dialogues; held: Dialogues }> {
  const { TRAINING, HELD } = await import("./dialogues.gen.ts");
  const read = async (content: string, name: string) => Dialogues.parse(await unpack(content), name);
  return {
    training: await read(TRAINING, "nano's dialogues"),
    held: await read(HELD, "nano's test dialogues"),
  };
}

/** Base64 of gzip, to bytes. */
async function unpack(content: string): Promise<Uint8Array> {
  const characters = atob(content);
  const packed = new Uint8Array(characters.length);
  // Not Uint8Array.from: called for each of a million characters, it took 200 ms, half of a start.
  for (let i = 0; i < packed.length; i++) packed[i] = characters.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
