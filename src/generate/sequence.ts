/**
 * One text that is being generated: its tokens, what of its text may be shown, and why it ends.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import type { LanguageModel } from "../model/language_model.ts";
import { StopFilter } from "./stop.ts";

/** Why generation ended: the text's end or a stop string, or as many tokens as were allowed. */
export type FinishReason = "stop" | "length";

/** A token as it comes. */
export interface GeneratedChunk {
  /** Text that became whole with this token; empty inside a character or a possible stop string. */
  text: string;
  /** The token's id. */
  token: number;
  /** Natural log of the token's probability by the model, before temperature, penalty and cuts. */
  logProb: number;
  /** Which prompt of the batch; 0 for a single one. */
  index: number;
  /** With a sequence's last token: why it ends. */
  finishReason?: FinishReason;
}

/** Text, or token ids. */
export type Prompt = string | readonly number[];

const DEFAULT_MAX_TOKENS = 128;

/** A prompt and its continuation. */
export class Sequence {
  /** Tokens that may still come. */
  left: number;
  /** Of these: chosen on the device already, but not yet here. */
  underway = 0;
  /** Tokens that went through the network, or are on their way. */
  fed = 0;
  /** Whether it has ended; what is under way then is surplus. */
  finished = false;
  readonly #model: LanguageModel;
  readonly #filter: StopFilter;
  readonly #decoder: { push(id: number): string; flush(): string };

  /**
   * @param model Whose tokens they are.
   * @param index Its number in the batch.
   * @param tokens The prompt's, and then those that were generated, as far as they are here.
   * @param most Tokens to come at most.
   * @param stops What ends it.
   */
  constructor(
    model: LanguageModel,
    readonly index: number,
    readonly tokens: number[],
    most: number,
    stops: readonly string[],
  ) {
    this.#model = model;
    this.left = most;
    this.#filter = new StopFilter(stops);
    this.#decoder = model.tokenizer.decoder();
  }

  /** Whether one more token is to be chosen, as far as is known yet. */
  get goesOn(): boolean {
    return !this.finished && this.underway < this.left;
  }

  /** Tokens that are still to go through the network before the next is chosen. */
  get pending(): number {
    return this.tokens.length + this.underway - this.fed;
  }

  /**
   * Takes in the next token.
   *
   * @returns What of its text may be shown.
   * @throws {WhetError} "diverged" if the logits it was chosen by are no numbers.
   */
  take(token: number, logProb: number): GeneratedChunk {
    const model = this.#model, filter = this.#filter, decoder = this.#decoder;
    if (!Number.isFinite(logProb)) {
      throw new WhetError(
        "diverged",
        `${model.name} gives logits that are not numbers; its weights are broken, or its adapter's`,
      );
    }
    this.tokens.push(token);
    this.underway--;
    this.left--;
    const chunk = (text: string, finishReason?: FinishReason): GeneratedChunk => {
      this.finished = finishReason !== undefined;
      return { text, token, logProb, index: this.index, ...(finishReason ? { finishReason } : {}) };
    };
    if (token === model.tokenizer.endOfText) {
      const { text, stopped } = filter.push(decoder.flush());
      return chunk(stopped ? text : text + filter.flush(), "stop");
    }
    const { text, stopped } = filter.push(decoder.push(token));
    if (stopped) return chunk(text, "stop");
    if (this.left > 0) return chunk(text);
    const rest = filter.push(decoder.flush());
    return chunk(text + rest.text + (rest.stopped ? "" : filter.flush()), rest.stopped ? "stop" : "length");
  }
}

/** What a batch of sequences is begun with. */
export interface Beginning {
  /** Tokens at most. */
  maxTokens?: number;
  /** What ends a text. */
  stop?: string | readonly string[];
}

/**
 * The sequences of a batch of prompts; checks everything before anything is computed.
 *
 * @throws {WhetError} "option" where a prompt is empty or does not fit the window, or a value makes no sense.
 */
export function begin(
  model: LanguageModel,
  prompts: readonly Prompt[],
  { maxTokens, stop = [] }: Beginning,
): Sequence[] {
  const { n_positions } = model.config;
  if (maxTokens !== undefined && !(Number.isInteger(maxTokens) && maxTokens >= 1)) {
    throw new WhetError("option", `maxTokens: expected a whole number of at least 1, got ${maxTokens}`);
  }
  const stops = typeof stop === "string" ? [stop] : stop;
  if (stops.some((stop) => stop === "")) {
    throw new WhetError("option", "stop: an empty string would end every text at once; leave it out");
  }
  if (prompts.length === 0) throw new WhetError("option", "prompt: an empty batch has nothing to continue");
  return prompts.map((prompt, index) => {
    const what = prompts.length > 1 ? `prompt ${index}` : "prompt";
    const tokens = tokensOf(model, prompt, what);
    if (tokens.length === 0) {
      throw new WhetError("option", `${what}: it is empty; give at least one character, or <|endoftext|>`);
    }
    model.checkTokens(tokens, what);
    const most = maxTokens ?? Math.min(DEFAULT_MAX_TOKENS, n_positions - tokens.length);
    if (tokens.length + most > n_positions || most < 1) {
      throw new WhetError(
        "option",
        `${what}: ${tokens.length} tokens and ${
          Math.max(most, 1)
        } more are beyond ${model.name}'s window of ` +
          `${n_positions}; shorten the prompt or lower maxTokens (--max-tokens)`,
      );
    }
    return new Sequence(model, index, tokens, most, stops);
  });
}

function tokensOf(model: LanguageModel, prompt: Prompt, what: string): number[] {
  if (typeof prompt === "string") return model.tokenizer.encode(prompt);
  if (typeof prompt === "object" && prompt !== null && Symbol.iterator in prompt) return [...prompt];
  throw new WhetError("option", `${what}: expected text or a list of token ids, got ${prompt}`);
}
