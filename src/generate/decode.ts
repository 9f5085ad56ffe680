/**
 * Decoding: prompts in, tokens out, one forward pass of the new tokens a step.
 *
 * On a device that works beside the host, several steps are under way at once: a chosen token goes into the next
 * step in the device's memory, and its id comes back some steps later. What is found out only then, that a text has
 * ended, makes the steps after it surplus: they are thrown away, and nobody sees them.
 *
 * @module
 */
import { type LanguageModel, LOGIT_ROWS, ROWS_AT_ONCE } from "../model/language_model.ts";
import type { Lora } from "../model/lora.ts";
import { groupByRows } from "../tensor/sequences.ts";
import { Ops } from "../tensor/ops.ts";
import { KeyValueCache } from "./cache.ts";
import { Pace } from "./pace.ts";
import {
  checkSampling,
  type Choice,
  type Chosen,
  MOST_CHOICES,
  Sampler,
  type SamplingOptions,
} from "./sampler.ts";
import { begin, type GeneratedChunk, type Prompt, type Sequence } from "./sequence.ts";

export type { FinishReason, GeneratedChunk, Prompt } from "./sequence.ts";

/** How text is generated; what is not given has the value in brackets. */
export interface GenerateOptions extends SamplingOptions {
  /** Tokens at most [128, or fewer where the window ends]. */
  maxTokens?: number;
  /** Ends when one of these appears; it is not part of the text [none]. */
  stop?: string | readonly string[];
  /** Ends generation when aborted; the iterator throws its reason. */
  signal?: AbortSignal;
}

/** A step that is under way. */
interface Step {
  /** Whose tokens it chooses. */
  sequences: readonly Sequence[];
  /** These, in the backend's memory. */
  chosen: Chosen;
}

/** Steps whose choices are on their way to the host. */
interface Fetch {
  steps: readonly Step[];
  /** Theirs, one after the other. */
  choices: Promise<Choice[]>;
}

/**
 * Generates a continuation of each prompt.
 *
 * Several generations may go on side by side, and beside scoring and training. Each keeps the adapter
 * that was attached when it was called, or none, whatever is attached or detached meanwhile; an
 * adapter that is being trained is used as it is when a step begins, on a GPU a few tokens ahead. Merging
 * changes the weights under all.
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
  const sequences = begin(model, prompts, options);
  const capacity = sequences.reduce((most, { tokens, left }) => Math.max(most, tokens.length + left), 0);
  using cache = new KeyValueCache(model.arena, model.config, model.weights, sequences.length, capacity);
  using sampler = new Sampler(
    model.arena,
    model.config.vocab_size,
    sampling,
    sequences.map(({ tokens }) => tokens),
    Math.max(model.backend.readAhead ?? 1, sequences.length),
  );

  const pace = new Pace(model.backend, sequences.length);
  let underway = 0;
  let round: Sequence[][] = []; // Groups that are still to make a step before any makes another.
  let begun: Step[] = []; // Not being fetched yet.
  const fetches: Fetch[] = []; // The oldest first.
  const fetch = () => {
    const steps = begun;
    begun = [];
    const choices = sampler.read(steps.map(({ chosen }) => chosen));
    choices.catch(() => {}); // Whoever waits for it hears of it; of surplus, nobody needs to.
    fetches.push({ steps, choices });
  };
  const goAhead = () => {
    while (underway < pace.ahead) {
      if (round.length === 0) round = groups(sequences.filter(({ goesOn }) => goesOn));
      if (round.length === 0 || !isReady(round[0], sampler)) return;
      signal?.throwIfAborted();
      begun.push(step(model, adapter, cache, sampler, round.shift()!));
      underway++;
      if (begun.length >= pace.together || !sequences.some(({ goesOn }) => goesOn)) fetch();
      model.backend.flush(); // A submission of its own: the device begins while the host records the next.
    }
  };
  while (sequences.some(({ finished }) => !finished)) {
    goAhead();
    if (fetches.length === 0) fetch();
    const { steps, choices } = fetches.shift()!;
    const all = await choices;
    pace.arrived();
    for (const [i, { sequences }] of steps.entries()) {
      const { tokens, logProbs } = all[i];
      underway--;
      for (const [row, sequence] of sequences.entries()) {
        if (sequence.finished) continue;
        signal?.throwIfAborted();
        yield sequence.take(tokens[row], logProbs[row]);
      }
      if (i < steps.length - 1) goAhead();
    }
  }
}

/** Sequences that go through the network together. */
function groups(sequences: readonly Sequence[]): Sequence[][] {
  const least = ROWS_AT_ONCE / Math.min(LOGIT_ROWS, MOST_CHOICES);
  const rows = sequences.map(({ pending }) => Math.max(pending, least));
  return groupByRows(rows, ROWS_AT_ONCE).map((group) => group.map((i) => sequences[i]));
}

/** Whether all tokens that a group feeds to the network are at hand: here, or where the sampler left them. */
function isReady(group: readonly Sequence[], sampler: Sampler): boolean {
  return group.every(({ underway }) => underway === 0) || sampler.chosen(indicesOf(group)) !== null;
}

function indicesOf(group: readonly Sequence[]): number[] {
  return group.map(({ index }) => index);
}

/**
 * Runs the tokens that are new in each sequence and chooses the next ones; only enqueues. What was chosen in the last
 * step for the same sequences is taken from the backend's memory.
 */
function step(
  model: LanguageModel,
  adapter: Lora | null,
  cache: KeyValueCache,
  sampler: Sampler,
  sequences: readonly Sequence[],
): Step {
  const rows: { token: number; position: number; slot: number }[] = [];
  const last: number[] = [];
  for (const { index, tokens, fed, pending } of sequences) {
    for (let position = fed; position < fed + pending; position++) {
      rows.push({ token: tokens[position], position, slot: index });
    }
    last.push(rows.length - 1);
  }
  const column = (name: "token" | "position" | "slot") => Uint32Array.from(rows, (row) => row[name]);
  const indices = indicesOf(sequences);
  const network = model.networkWith(adapter);
  const chosen = model.arena.scope(() => {
    const ops = new Ops(model.arena);
    const upload = (data: Uint32Array) => model.arena.upload(data);
    const tokens = sampler.chosen(indices) ?? upload(column("token")),
      positions = upload(column("position")),
      slots = upload(column("slot"));
    const hidden = network.forward(ops, {
      tokens,
      positions,
      context: { cache: (layer) => cache.view(layer, slots, positions) },
      counted: last.length === rows.length ? undefined : upload(Uint32Array.from(last)),
    });
    return sampler.choose(ops.unembed(hidden, network.wte), indices);
  });
  for (const sequence of sequences) {
    sequence.fed += sequence.pending;
    sequence.underway++;
  }
  return { sequences, chosen };
}
