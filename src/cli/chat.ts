/**
 * `whet chat`.
 *
 * @module
 */
import type { GPT2 } from "../gpt2.ts";
import { formatPrompt, STOP, type Turn } from "../text/templates.ts";
import type { CHAT } from "./command_flags.ts";
import type { Values } from "./flags.ts";
import { readSampling, stream } from "./generate.ts";
import { openModel } from "./model.ts";
import { note, print, printLine } from "./output.ts";

/** A conversation in the terminal; see `CHAT` for the flags. */
export async function runChat(values: Values<typeof CHAT>): Promise<{ turns: Turn[] }> {
  using model = await openModel(values.model, values);
  const options = readSampling(values);
  if (!values.quiet) note("an empty line or Ctrl-D ends the conversation");
  const turns: Turn[] = [];
  const show = values.json ? () => {} : print;
  for await (const line of questions(values.quiet || values.json)) {
    turns.push({ role: "human", text: line });
    const prompt = fit(model, turns, options.maxTokens ?? 128);
    let begun = false;
    const { text } = await stream(model, prompt, { ...options, stop: STOP }, (text) => {
      const shown = begun ? text : text.trimStart();
      begun ||= shown !== "";
      show(shown);
    });
    if (!values.json) printLine("");
    turns.push({ role: "assistant", text: text.trim() });
  }
  return { turns };
}

/** The conversation as a prompt; its oldest exchanges go when it outgrows the window. */
function fit(model: GPT2, turns: Turn[], answer: number): string {
  const room = model.config.n_positions - answer;
  while (turns.length > 2 && model.tokenizer.encode(formatPrompt(turns)).length > room) turns.splice(0, 2);
  return formatPrompt(turns);
}

/** Lines from standard input, up to an empty one. */
async function* questions(quiet: boolean): AsyncGenerator<string> {
  const ask = () => {
    if (!quiet && Deno.stdin.isTerminal()) Deno.stderr.writeSync(new TextEncoder().encode("> "));
  };
  let rest = "";
  ask();
  for await (const chunk of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + chunk).split(/\r?\n/);
    rest = lines.pop()!;
    for (const line of lines) {
      if (line.trim() === "") return;
      yield line.trim();
      ask();
    }
  }
  if (rest.trim() !== "") yield rest.trim();
}
