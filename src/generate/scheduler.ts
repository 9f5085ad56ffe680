/**
 * Continuous batching (as in Orca, Yu et al. 2022): requests join and leave between tokens, rows of one pass through the
 * network belong to different requests, each with its own adapter, and long prompts go through in pieces beside the
 * tokens of the others.
 *
 * A row's numbers do not depend on the rows beside it, on WASM to the bit: a request's tokens and log-probabilities are
 * the same whoever else is served.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { CACHE_BLOCK } from "../tensor/backend.ts";
import { AdapterBank, type BankedAdapter } from "../model/adapter_bank.ts";
import type { LanguageModel } from "../model/language_model.ts";
import { Ops } from "../tensor/ops.ts";
import { uniform } from "../tensor/random.ts";
import { SLICE_ALIGNMENT, type Tensor } from "../tensor/tensor.ts";
import { BlockCache } from "./block_cache.ts";
import { breathe } from "./breathe.ts";
import { type Scored, scoreOf } from "./log_probs.ts";
import { Mailbox } from "./mailbox.ts";
import { checkSampling, MOST_CHOICES, type SamplingOptions } from "./sampler.ts";
import { begin, type GeneratedChunk, Sequence } from "./sequence.ts";

/** How much is served at once; what is not given has the value in brackets. */
export interface SchedulerOptions {
  /** Sequences that go on at once [16]. */
  slots?: number;
  /** Bytes of their keys and values [256 MiB]. */
  cacheBytes?: number;
  /** Rows of a prompt that go through the network at once beside other requests' tokens [64]. */
  rowsBeside?: number;
  /** The same when there are no others [256]. */
  rowsAlone?: number;
}

/** A text to continue, or to score. */
export interface ScheduledRequest extends SamplingOptions {
  /** The prompt's tokens. */
  tokens: readonly number[];
  /** Tokens at most; 0 only takes the prompt in [128, or fewer where the window ends]. */
  maxTokens?: number;
  /** Ends when one of these appears [none]. */
  stop?: string | readonly string[];
  /** Which of several continuations of one prompt with one seed it is [0]. */
  choice?: number;
  /** Its adapter in {@linkcode Scheduler.bank}, which stays there until the request has ended [none]. */
  adapter?: BankedAdapter | null;
  /** How many of the likeliest tokens come with each [0]. */
  alternatives?: number;
  /** Whether the prompt's own tokens are scored [false]. */
  scorePrompt?: boolean;
  /** Ends it. */
  signal?: AbortSignal;
}

/** What comes of a request: first the scores of its prompt, if they are wanted, then its tokens. */
export type ScheduledChunk =
  | { prompt: Scored[] }
  | GeneratedChunk & { alternatives?: Scored["alternatives"] };

/** A request that is under way. */
interface Job {
  sequence: Sequence;
  request: ScheduledRequest;
  sampling: Required<SamplingOptions>;
  /** Tokens of its prompt. */
  prompt: number;
  /** Tokens that it wants. */
  most: number;
  /** Positions that it may come to take. */
  positions: number;
  /** Choices so far. */
  choices: number;
  /** Its place in the cache, when it has one. */
  slot: number;
  /** Scores of the prompt so far; the first token has none. */
  scored: Scored[];
  mailbox: Mailbox<ScheduledChunk>;
  /** Listens no more to its signal, which may live for long. */
  leave(): void;
}

/** Some neighbouring tokens of a job, in one pass. */
interface Piece {
  job: Job;
  /** Its first row of the pass. */
  row: number;
  /** Its rows. */
  count: number;
  /** Whether the next token is chosen after it. */
  chooses: boolean;
}

/** Rows of logits at once. */
const LOGIT_ROWS = MOST_CHOICES;

/** Sequences at once at most: each takes memory for what it has seen, whether or not anybody comes. */
const MOST_SLOTS = 4096;

/** What a scheduler is doing. */
export interface SchedulerState {
  /** Requests with a place in the cache. */
  running: number;
  /** Requests that wait for one. */
  waiting: number;
  /** Blocks of the cache that nobody has. */
  freeBlocks: number;
  /** Blocks of the cache. */
  blocks: number;
  /** Prompt tokens taken in so far. */
  promptTokens: number;
  /** Tokens generated so far. */
  generatedTokens: number;
  /** Passes through the network so far. */
  steps: number;
}

/** Serves requests on one model, which others may use beside. */
export class Scheduler implements Disposable {
  /** The adapters that requests may name. */
  readonly bank: AdapterBank;
  readonly #model: LanguageModel;
  readonly #options: Required<SchedulerOptions>;
  readonly #cache: BlockCache;
  /** u32 (slots, W): tokens that each slot's sequence has seen, for a penalty. */
  readonly #seen: Tensor;
  readonly #waiting: Job[] = [];
  readonly #running: Job[] = [];
  readonly #freeSlots: number[];
  readonly #counts = { promptTokens: 0, generatedTokens: 0, steps: 0 };
  #working = false;
  #disposed = false;

  /**
   * @param model The model; it outlives the scheduler.
   * @param options How much is served at once.
   * @throws {WhetError} "resource" where memory is out, "option" where a value makes no sense.
   */
  constructor(model: LanguageModel, options: SchedulerOptions = {}) {
    const { slots = 16, cacheBytes = 256 * 2 ** 20, rowsBeside = 64, rowsAlone = 256 } = options;
    for (const [name, value] of Object.entries({ slots, cacheBytes, rowsBeside, rowsAlone })) {
      if (Number.isSafeInteger(value) && value > 0) continue;
      throw new WhetError("option", `${name}: expected a whole number above 0, got ${value}`);
    }
    if (slots > MOST_SLOTS) {
      throw new WhetError("option", `slots: at most ${MOST_SLOTS} sequences go on at once, got ${slots}`);
    }
    this.#model = model;
    this.#options = { slots, cacheBytes, rowsBeside, rowsAlone };
    this.#freeSlots = Array.from({ length: slots }, (_, i) => slots - 1 - i);
    this.#cache = new BlockCache(model.arena, model.config, model.weights, { slots, bytes: cacheBytes });
    const W = Math.ceil(model.config.vocab_size / 32 / SLICE_ALIGNMENT) * SLICE_ALIGNMENT;
    try {
      this.bank = new AdapterBank(model.backend);
      this.#seen = model.arena.temporary([slots, W], "u32");
    } catch (error) {
      this.#cache[Symbol.dispose]();
      throw error;
    }
  }

  /** What it is doing. */
  get state(): SchedulerState {
    return {
      running: this.#running.length,
      waiting: this.#waiting.length,
      freeBlocks: this.#cache.free,
      blocks: this.#cache.blocks,
      ...this.#counts,
    };
  }

  /**
   * Takes a request in. It is worked on whether or not anybody reads what comes; who stops reading ends it, also by
   * `return()` before the first chunk.
   *
   * @param request What is wanted.
   * @returns What comes of it.
   * @throws {WhetError} "option" where it makes no sense, does not fit the window or names an adapter that is not in the
   * bank, "resource" where the cache could never hold it, "disposed".
   */
  submit(request: ScheduledRequest): AsyncGenerator<ScheduledChunk, void, undefined> {
    if (this.#disposed) throw new WhetError("disposed", "the scheduler was disposed");
    const { signal } = request;
    signal?.throwIfAborted();
    const job = this.#accept(request);
    const abort = () => job.mailbox.fail(signal!.reason);
    signal?.addEventListener("abort", abort);
    job.leave = () => signal?.removeEventListener("abort", abort);
    this.#waiting.push(job);
    if (!this.#working) this.#work();
    return this.#deliver(job);
  }

  #accept(request: ScheduledRequest): Job {
    const { tokens, maxTokens, stop, adapter, scorePrompt = false, alternatives = 0 } = request;
    const sequence = maxTokens === 0
      ? this.#prompt(tokens)
      : begin(this.#model, [tokens], { maxTokens, stop })[0];
    if (!Number.isInteger(alternatives) || alternatives < 0 || alternatives > 20) {
      throw new WhetError(
        "option",
        `alternatives: expected a whole number from 0 to 20, got ${alternatives}`,
      );
    }
    if (adapter && !this.bank.has(adapter)) {
      throw new WhetError("option", "adapter: it is not in this scheduler's bank; add it there first");
    }
    const most = sequence.left;
    const positions = tokens.length + Math.max(0, most - 1); // The last token that is chosen goes through no more.
    const room = this.#cache.blocks;
    if (Math.ceil(positions / CACHE_BLOCK) > room) {
      throw new WhetError(
        "resource",
        `${positions} tokens do not fit the cache; ask for fewer, or serve with a larger one`,
      );
    }
    const job: Job = {
      ...{ sequence, request, sampling: checkSampling(request), most, positions, choices: 0, slot: -1 },
      prompt: tokens.length,
      scored: scorePrompt ? [{ token: tokens[0], logProb: null }] : [],
      mailbox: new Mailbox(),
      leave() {},
    };
    return job;
  }

  /** A prompt that nothing is to follow: it may fill the window. */
  #prompt(tokens: readonly number[]): Sequence {
    this.#model.checkTokens(tokens, "prompt");
    if (tokens.length === 0) throw new WhetError("option", "prompt: it is empty; there is nothing to score");
    return new Sequence(this.#model, 0, [...tokens], 0, []);
  }

  #deliver({ mailbox }: Job): AsyncGenerator<ScheduledChunk, void, undefined> {
    const chunks = async function* (): AsyncGenerator<ScheduledChunk, void, undefined> {
      try {
        yield* mailbox;
      } finally {
        mailbox.close(); // Ends the work, if there is still some.
      }
    }();
    // A generator that nobody has begun to read has no `finally` yet, and one that waits would wait on.
    const end = chunks.return.bind(chunks);
    chunks.return = (value) => {
      mailbox.close();
      return end(value);
    };
    return chunks;
  }

  /** Goes on until nothing is left to do. */
  async #work(): Promise<void> {
    this.#working = true;
    using breath = breathe();
    try {
      for (;;) {
        await breath.next(); // New requests, aborted ones, and everything else that the process has to do.
        if (this.#disposed) return;
        this.#dismiss();
        this.#admit();
        if (this.#running.length === 0) return;
        await this.#step(this.#choosePieces());
      }
    } finally {
      this.#working = false;
    }
  }

  /** Lets go of requests that have ended, or that nobody wants any more. */
  #dismiss(): void {
    const over = ({ mailbox }: Job) => mailbox.closed;
    for (const job of this.#running.filter(over)) {
      this.#cache.release(job.slot);
      this.#freeSlots.push(job.slot);
    }
    for (const jobs of [this.#running, this.#waiting]) {
      for (const job of jobs.filter(over)) job.leave();
      jobs.splice(0, Infinity, ...jobs.filter((job) => !over(job)));
    }
  }

  /** Gives places to those who wait, first come first served: nobody passes a long request by. */
  #admit(): void {
    while (
      this.#waiting.length > 0 && this.#freeSlots.length > 0 && this.#cache.fits(this.#waiting[0].positions)
    ) {
      const job = this.#waiting.shift()!;
      job.slot = this.#freeSlots.pop()!;
      this.#cache.reserve(job.slot, job.positions);
      this.#running.push(job);
      try {
        this.#remember(job);
      } catch (error) {
        job.mailbox.fail(error);
      }
    }
  }

  /** Writes down for the penalty which tokens a job has seen. */
  #remember({ sampling, sequence, slot }: Job): void {
    if (sampling.repetitionPenalty === 1) return;
    const [, W] = this.#seen.shape;
    const set = new Uint32Array(W);
    for (const token of sequence.tokens) set[token >> 5] |= 1 << (token & 31);
    this.#model.backend.write(this.#seen.slice(slot * W, [W]), set);
  }

  /** One pass through the network: a token of everyone who goes on, and pieces of prompts. */
  async #step(pieces: readonly Piece[]): Promise<void> {
    let reads: Promise<() => void>[];
    try {
      reads = this.#enqueue(pieces);
    } catch (error) {
      return await this.#retry(pieces, error);
    }
    await this.#settle(pieces, reads);
  }

  /**
   * What cannot be done together is done one by one, and in smaller pieces for want of memory: only who fails alone
   * fails.
   */
  async #retry(pieces: readonly Piece[], error: unknown): Promise<void> {
    if (pieces.length === 1) {
      const [piece] = pieces;
      const lacksMemory = error instanceof WhetError && error.code === "resource";
      if (!lacksMemory || piece.count === 1) return piece.job.mailbox.fail(error);
      return await this.#step([{ ...piece, count: Math.ceil(piece.count / 2), chooses: false }]);
    }
    for (const piece of pieces) {
      if (this.#disposed) return;
      const { job } = piece;
      if (job.mailbox.closed) continue;
      try {
        this.#remember(job); // A choice may have been made that does not count.
        await this.#step([{ ...piece, row: 0 }]);
      } catch (error) {
        job.mailbox.fail(error);
      }
    }
  }

  /** First the tokens of those who go on, then as much of the prompts as has room beside them. */
  #choosePieces(): Piece[] {
    const { rowsBeside, rowsAlone } = this.#options;
    const going = this.#running.filter(({ sequence }) => sequence.pending === 1);
    const coming = this.#running.filter(({ sequence }) => sequence.pending > 1);
    let room = going.length > 0 ? rowsBeside : rowsAlone;
    const pieces: Piece[] = [];
    let row = 0;
    const add = (job: Job, count: number) => {
      pieces.push({ job, row, count, chooses: count === job.sequence.pending && job.most > 0 });
      row += count;
    };
    for (const job of going) add(job, 1);
    for (const job of coming) {
      if (room === 0) break;
      const count = Math.min(room, job.sequence.pending);
      add(job, count);
      room -= count;
    }
    return pieces;
  }

  /** The rows whose hidden states are wanted: never none, for a pass ends with some. */
  #countedRows(scoring: readonly Piece[], choosing: readonly Piece[]): number[] {
    const rows = new Set(
      scoring.flatMap(({ row, count }) => Array.from({ length: count }, (_, i) => row + i)),
    );
    for (const { row, count } of choosing) rows.add(row + count - 1);
    return rows.size > 0 ? [...rows].sort((a, b) => a - b) : [0];
  }

  /** Enqueues a pass; if it throws, nothing has changed but what {@linkcode Scheduler.#remember} mends. */
  #enqueue(pieces: readonly Piece[]): Promise<() => void>[] {
    const model = this.#model, { arena, backend } = model;
    const rows = pieces.flatMap(({ job, count }) =>
      Array.from({ length: count }, (_, i) => ({
        token: job.sequence.tokens[job.sequence.fed + i],
        position: job.sequence.fed + i,
        slot: job.slot,
        adapter: job.request.adapter ?? null,
      }))
    );
    const choosing = pieces.filter(({ chooses }) => chooses);
    const scoring = pieces.filter(({ job }) => job.scored.length > 0 && job.scored.length < job.prompt);
    const reads = arena.scope(() => {
      const column = (name: "token" | "position" | "slot") =>
        arena.upload(Uint32Array.from(rows, (row) => row[name]));
      const network = model.networkWith(null);
      const counted = this.#countedRows(scoring, choosing);
      const some = counted.length < rows.length ? counted : undefined;
      const updates = this.bank.updates(arena, network, rows.map(({ adapter }) => adapter), some);
      const ops = new Ops(arena, null, undefined, updates);
      const [slots, positions, blocks] = [column("slot"), column("position"), this.#cache.table()];
      const hidden = network.forward(ops, {
        tokens: column("token"),
        positions,
        context: { cache: (layer) => this.#cache.view(layer, { slots, positions, blocks }) },
        counted: some && arena.upload(Uint32Array.from(some)),
      });
      const places = new Map(counted.map((row, place) => [row, place]));
      const logitsOf = (rows: number[]) => {
        const own = rows.map((row) => places.get(row)!);
        const all = own.length === counted.length && own.every((place, i) => place === i);
        const wanted = all ? hidden : ops.gather(hidden, arena.upload(Uint32Array.from(own)));
        return ops.unembed(wanted, network.wte);
      };
      const reads: Promise<() => void>[] = [];
      const expect = (read: Promise<() => void>) => {
        read.catch(() => {}); // All are waited for, the first that fails is told.
        reads.push(read);
      };
      for (const piece of scoring) {
        for (let first = 0; first < piece.count; first += LOGIT_ROWS) {
          arena.scope(() => {
            const count = Math.min(LOGIT_ROWS, piece.count - first);
            const logits = logitsOf(Array.from({ length: count }, (_, i) => piece.row + first + i));
            expect(this.#score(piece, piece.job.sequence.fed + first, logits));
          });
        }
      }
      for (let first = 0; first < choosing.length; first += LOGIT_ROWS) {
        arena.scope(() => {
          const group = choosing.slice(first, first + LOGIT_ROWS);
          expect(this.#choose(group, logitsOf(group.map(({ row, count }) => row + count - 1))));
        });
      }
      return reads;
    });
    backend.flush();
    for (const { job, count } of pieces) {
      const before = job.sequence.fed;
      job.sequence.fed += count;
      if (before < job.prompt) this.#counts.promptTokens += count;
    }
    this.#counts.steps++;
    return reads;
  }

  /** Waits for what a pass brings, and tells those who asked. */
  async #settle(pieces: readonly Piece[], reads: readonly Promise<() => void>[]): Promise<void> {
    let settled: (() => void)[];
    try {
      settled = await Promise.all(reads);
    } catch (error) {
      for (const { job } of pieces) job.mailbox.fail(error);
      return;
    }
    for (const { job, chooses } of pieces) if (chooses) job.sequence.underway++;
    for (const settle of settled) settle();
    for (const { job: { scored, sequence, mailbox, most } } of pieces) {
      if (most > 0 || sequence.pending > 0) continue;
      if (scored.length > 0) mailbox.push({ prompt: scored });
      mailbox.end();
    }
  }

  /** Chooses a token for each, at once; what comes of it is told when it has been read. */
  #choose(group: readonly Piece[], logits: Tensor): Promise<() => void> {
    const { backend, arena } = this.#model;
    const N = group.length;
    const [tokens, logProbs] = [arena.temporary([N], "u32"), arena.temporary([N])];
    const rows = group.map(({ job }) => {
      const { seed, ...options } = job.sampling;
      const draw = uniform(job.choices, [seed >>> 0, job.request.choice ?? 0]);
      return { ...options, draw, slot: job.slot };
    });
    const seen = rows.some(({ repetitionPenalty }) => repetitionPenalty !== 1) ? this.#seen : undefined;
    backend.sample({ logits, rows, seen, tokens, logProbs });
    const wanted = group.some(({ job }) => job.request.alternatives);
    const results = Promise.all([
      backend.readU32(tokens),
      backend.read(logProbs),
      wanted ? backend.read(logits) : null,
    ]);
    return results.then(([ids, scores, all]) => () => {
      for (const [i, { job }] of group.entries()) {
        if (job.mailbox.closed) continue;
        try {
          if (job.choices++ === 0 && job.scored.length > 0) job.mailbox.push({ prompt: job.scored });
          const chunk = job.sequence.take(ids[i], scores[i]);
          this.#counts.generatedTokens++;
          const { alternatives = 0 } = job.request;
          const V = logits.shape[1];
          const row = alternatives > 0 ? all!.subarray(i * V, (i + 1) * V) : null;
          job.mailbox.push(
            row ? { ...chunk, alternatives: scoreOf(row, chunk.token, alternatives).alternatives } : chunk,
          );
          if (chunk.finishReason) job.mailbox.end();
        } catch (error) {
          job.mailbox.fail(error);
        }
      }
    });
  }

  /** Scores the tokens that follow some of a prompt's. */
  async #score({ job }: Piece, position: number, logits: Tensor): Promise<() => void> {
    const all = await this.#model.backend.read(logits);
    const [rows, V] = logits.shape;
    return () => {
      const { tokens } = job.sequence;
      const end = Math.min(job.prompt, position + rows + 1);
      for (let next = position + 1; next < end; next++) {
        const row = all.subarray((next - position - 1) * V, (next - position) * V);
        const scored = scoreOf(row, tokens[next], job.request.alternatives ?? 0);
        if (!Number.isFinite(scored.logProb)) return job.mailbox.fail(diverged(this.#model));
        job.scored.push(scored);
      }
    };
  }

  /** Ends all requests and frees what it holds. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    const error = new WhetError("disposed", "the scheduler was disposed");
    for (const { mailbox, leave } of [...this.#running.splice(0), ...this.#waiting.splice(0)]) {
      leave();
      mailbox.fail(error);
    }
    this.bank[Symbol.dispose]();
    this.#model.arena.release(this.#seen);
    this.#cache[Symbol.dispose]();
  }
}

function diverged({ name }: LanguageModel): WhetError {
  return new WhetError(
    "diverged",
    `${name} gives logits that are not numbers; its weights are broken, or its adapter's`,
  );
}
