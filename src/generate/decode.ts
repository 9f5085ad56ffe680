/**
 * Decoding: prompts in, tokens out, one forward pass of the new tokens a step.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { type LanguageModel, LOGIT_ROWS, ROWS_AT_ONCE } from "../model/language_model.ts";
import type { Lora } from "../model/lora.ts";
import { groupByRows } from "../tensor/sequences.ts";
import { Ops } from "../tensor/ops.ts";
import { KeyValueCache } from "./cache.ts";
import { checkSampling, MOST_CHOICES, Sampler, type SamplingOptions } from "./sampler.ts";
import { StopFilter } from "./stop.ts";

/** How text is generated; what is not given has the value in brackets. */
export interface GenerateOptions extends SamplingOptions {
  /** Tokens at most [128, or fewer where the window ends]. */
  maxTokens?: number;
  /** Ends when one of these appears; it is not part of the text [none]. */
  stop?: string | readonly string[];
  /** Ends generation when aborted; the iterator throws its reason. */
  signal?: AbortSignal;
}

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

/** One sequence being generated. */
interface Sequence {
  index: number;
  tokens: number[];
  pending: number[];
  left: number;
  filter: StopFilter;
  decoder: { push(id: number): string; flush(): string };
}

/**
 * Generates a continuation of each prompt.
 *
 * Several generations may go on side by side, and beside scoring and training. Each keeps the adapter
 * that was attached when it was called, or none, whatever is attached or detached meanwhile; an
 * adapter that is being trained is used as it is at each step. Merging changes the weights under all.
 *
 * @param model The model.
 * @param prompts A batch; each is continued by itself.
 * @param options Length, sampling, stop strings.
 * @returns Each sequence's tokens as they come.
 * @throws {WhetError} "option" where a prompt is empty or does not fit the window, or a value makes no
 * sense; "diverged" where the logits are not numbers; "disposed".
 */
export function generate(
  model: LanguageModel,
  prompts: readonly Prompt[],
  options: GenerateOptions = {},
): AsyncGenerator<GeneratedChunk, void, undefined> {
  return decode(model, model.adapter, prompts, options);
}

async function* decode(
  model: LanguageModel,
  adapter: Lora | null,
  prompts: readonly Prompt[],
  options: GenerateOptions,
): AsyncGenerator<GeneratedChunk, void, undefined> {
  const { signal } = options;
  signal?.throwIfAborted();
  model.networkWith(adapter); // Throws if either was disposed.
  const sampling = checkSampling(options);
  let active = begin(model, prompts, options);
  const capacity = active.reduce((most, { tokens, left }) => Math.max(most, tokens.length + left), 0);
  using cache = new KeyValueCache(model.arena, model.config, model.weights, active.length, capacity);
  using sampler = new Sampler(
    model.arena,
    model.config.vocab_size,
    sampling,
    active.map(({ tokens }) => tokens),
  );

  while (active.length > 0) {
    const running: Sequence[] = [];
    const least = ROWS_AT_ONCE / Math.min(LOGIT_ROWS, MOST_CHOICES);
    const rows = active.map(({ pending }) => Math.max(pending.length, least));
    for (const group of groupByRows(rows, ROWS_AT_ONCE)) {
      const sequences = group.map((i) => active[i]);
      signal?.throwIfAborted();
      const [tokens, logProbs] = await step(model, adapter, cache, sampler, sequences);
      for (const [row, sequence] of sequences.entries()) {
        signal?.throwIfAborted();
        const chunk = advance(model, sequence, tokens[row], logProbs[row]);
        if (!chunk.finishReason) running.push(sequence);
        yield chunk;
      }
    }
    active = running;
  }
}

/** Checks everything before anything is computed. */
function begin(model: LanguageModel, prompts: readonly Prompt[], options: GenerateOptions): Sequence[] {
  const { n_positions } = model.config;
  const { maxTokens } = options;
  if (maxTokens !== undefined && !(Number.isInteger(maxTokens) && maxTokens >= 1)) {
    throw new WhetError("option", `maxTokens: expected a whole number of at least 1, got ${maxTokens}`);
  }
  const stops = typeof options.stop === "string" ? [options.stop] : options.stop ?? [];
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
    const left = maxTokens ?? Math.min(DEFAULT_MAX_TOKENS, n_positions - tokens.length);
    if (tokens.length + left > n_positions || left < 1) {
      throw new WhetError(
        "option",
        `${what}: ${tokens.length} tokens and ${
          Math.max(left, 1)
        } more are beyond ${model.name}'s window of ` +
          `${n_positions}; shorten the prompt or lower maxTokens (--max-tokens)`,
      );
    }
    return {
      index,
      tokens,
      pending: tokens,
      left,
      filter: new StopFilter(stops),
      decoder: model.tokenizer.decoder(),
    };
  });
}

function tokensOf(model: LanguageModel, prompt: Prompt, what: string): number[] {
  if (typeof prompt === "string") return model.tokenizer.encode(prompt);
  if (typeof prompt === "object" && prompt !== null && Symbol.iterator in prompt) return [...prompt];
  throw new WhetError("option", `${what}: expected text or a list of token ids, got ${prompt}`);
}

/**
 * Runs the tokens that are new in each sequence, chooses the next ones and gives these, with their log-probabilities,
 * once they are here: all but that is enqueued when this returns. What was chosen in the last step for the same
 * sequences is taken from the backend's memory.
 */
function step(
  model: LanguageModel,
  adapter: Lora | null,
  cache: KeyValueCache,
  sampler: Sampler,
  sequences: readonly Sequence[],
): Promise<[tokens: Uint32Array, logProbs: Float32Array]> {
  const rows: { token: number; position: number; slot: number }[] = [];
  const last: number[] = [];
  for (const { index, tokens, pending } of sequences) {
    const first = tokens.length - pending.length;
    for (const [i, token] of pending.entries()) rows.push({ token, position: first + i, slot: index });
    last.push(rows.length - 1);
  }
  const column = (name: "token" | "position" | "slot") => Uint32Array.from(rows, (row) => row[name]);
  const indices = sequences.map(({ index }) => index);
  const network = model.networkWith(adapter);
  return model.arena.scope(() => {
    const ops = new Ops(model.arena);
    const upload = (data: Uint32Array) => model.arena.upload(data);
    const tokens = sampler.chosen(indices) ?? upload(column("token")),
      positions = upload(column("position")),
      slots = upload(column("slot"));
    const hidden = network.forward(ops, {
      tokens,
      positions,
      context: { cache: (layer) => cache.view(layer, slots, positions) },
    });
    const ends = last.length === rows.length ? hidden : ops.gather(hidden, upload(Uint32Array.from(last)));
    const chosen = sampler.choose(ops.unembed(ends, network.wte), indices);
    return Promise.all([model.backend.readU32(chosen.tokens), model.backend.read(chosen.logProbs)]);
  });
}

/** Takes in a sequence's next token; gives what of its text may be shown. */
function advance(model: LanguageModel, sequence: Sequence, token: number, logProb: number): GeneratedChunk {
  const { index, tokens, filter, decoder } = sequence;
  if (!Number.isFinite(logProb)) {
    throw new WhetError(
      "diverged",
      `${model.name} gives logits that are not numbers; its weights are broken, or its adapter's`,
    );
  }
  tokens.push(token);
  sequence.pending = [token];
  sequence.left--;
  if (token === model.tokenizer.endOfText) {
    const { text, stopped } = filter.push(decoder.flush());
    return { text: stopped ? text : text + filter.flush(), token, logProb, index, finishReason: "stop" };
  }
  let { text, stopped } = filter.push(decoder.push(token));
  if (stopped) return { text, token, logProb, index, finishReason: "stop" };
  if (sequence.left > 0) return { text, token, logProb, index };
  const rest = filter.push(decoder.flush());
  stopped = rest.stopped;
  text += stopped ? rest.text : rest.text + filter.flush();
  return { text, token, logProb, index, finishReason: stopped ? "stop" : "length" };
}
