/**
 * `whet generate`.
 *
 * @module
 */
import type { GPT2 } from "../gpt2.ts";
import type { FinishReason, GenerateOptions } from "../generate/decode.ts";
import type { CHAT, GENERATE } from "./command_flags.ts";
import type { Values } from "./flags.ts";
import { given, openModel } from "./model.ts";
import { note, print, printLine } from "./output.ts";

/** What `--json` prints. */
export interface GenerateResult {
  /** The continuation, without the prompt. */
  text: string;
  /** Its tokens' number. */
  tokens: number;
  /** Why it ended. */
  finish_reason: FinishReason;
  /** Tokens per second, the prompt's forward pass included. */
  tokens_per_second: number;
}

/** Continues a prompt; see `GENERATE` for the flags. */
export async function runGenerate(values: Values<typeof GENERATE>): Promise<GenerateResult> {
  using model = await openModel(values.model, values);
  const options = { ...readSampling(values), ...given({ stop: values.stop }) };
  const result = await stream(model, values.prompt, options, values.json ? () => {} : print);
  if (!values.json) printLine("");
  if (!values.quiet) {
    note(
      `${result.tokens} tokens, ${
        result.tokens_per_second.toFixed(1)
      } tokens/s, ended by ${result.finish_reason}`,
    );
  }
  return result;
}

/** The sampling flags as the library takes them. */
export function readSampling(values: Values<Omit<typeof CHAT, "model">>): GenerateOptions {
  return given({
    maxTokens: values["max-tokens"],
    temperature: values.temperature,
    topK: values["top-k"],
    topP: values["top-p"],
    repetitionPenalty: values["repetition-penalty"],
    seed: values.seed,
  });
}

/** Generates and shows the text as it comes. */
export async function stream(
  model: GPT2,
  prompt: string,
  options: GenerateOptions,
  show: (text: string) => void,
): Promise<GenerateResult> {
  const begin = performance.now();
  let text = "", tokens = 0, finish_reason: FinishReason = "length";
  for await (const chunk of model.generate(prompt, options)) {
    show(chunk.text);
    text += chunk.text;
    tokens++;
    finish_reason = chunk.finishReason ?? finish_reason;
  }
  return { text, tokens, finish_reason, tokens_per_second: tokens / ((performance.now() - begin) / 1000) };
}
