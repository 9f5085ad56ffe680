/**
 * A model's own chat template, where its files have one.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { parseJsonObject } from "../format/json.ts";
import { openRepository } from "../format/source.ts";
import type { SourceOptions } from "../format/repository.ts";

/**
 * Reads a model's chat template: chat_template.jinja, or `chat_template` of tokenizer_config.json, which is a text or a
 * list of `{ name, template }`, of which the one called "default" counts
 * (https://huggingface.co/docs/transformers/chat_templating).
 *
 * @param source The model: a directory, an http(s) URL, a Hub id or `"nano"`.
 * @param options Progress, abort signal.
 * @returns The template in Jinja, or undefined where there is none.
 * @throws {WhetError} "format" where the entry is neither.
 */
export async function readChatTemplate(
  source: string,
  options: SourceOptions = {},
): Promise<string | undefined> {
  if (source === "nano") return undefined;
  const repository = await openRepository(source, options);
  const file = await repository.text("chat_template.jinja");
  if (file !== null) return file;
  const text = await repository.text("tokenizer_config.json");
  if (text === null) return undefined;
  const where = `${repository.name}/tokenizer_config.json`;
  const { chat_template: entry } = parseJsonObject(text, where);
  if (entry === undefined || entry === null) return undefined;
  if (typeof entry === "string") return entry;
  if (Array.isArray(entry)) {
    const named = entry.find((one) => one?.name === "default");
    if (!named) return undefined;
    if (typeof named.template === "string") return named.template;
  }
  throw new WhetError(
    "format",
    `${where}: chat_template: expected a text or a list of { name, template }; correct or remove it`,
  );
}
