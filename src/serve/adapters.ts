/**
 * The adapters of a server: known by name, loaded when they are first asked for, kept as long as there is room.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import type { AdapterBank, BankedAdapter } from "../model/adapter_bank.ts";
import { type Adaptable, Lora } from "../model/lora.ts";

/** How adapters are kept; what is not given has the value in brackets. */
export interface AdapterStoreOptions {
  /** Bytes that they take in the backend's memory at most [128 MiB]. */
  bytes?: number;
  /** Loads one [{@linkcode Lora.load}]. */
  load?: (source: string, options: { signal?: AbortSignal }) => Promise<Lora>;
}

/** An adapter that stays until it is released. */
export interface AdapterLease {
  /** Where it lies. */
  readonly adapter: BankedAdapter;
  /** Says that it is no longer needed; once. */
  release(): void;
}

/** A name's adapter: where it comes from, and where it is. */
interface Entry {
  name: string;
  source: string;
  /** While it is being loaded. */
  loading: Promise<void> | null;
  banked: BankedAdapter | null;
  /** Requests that have it, or wait for it. */
  users: number;
  /** When it was last asked for. */
  used: number;
  /** Whether its name is still its own. */
  known: boolean;
}

/** What a store holds. */
export interface AdapterStoreState {
  /** Adapters that are known. */
  known: number;
  /** Of them, in memory. */
  loaded: number;
  /** Bytes of the backend's memory. */
  bytes: number;
  /** Loads so far. */
  loads: number;
  /** Adapters that made room for others so far. */
  evictions: number;
}

/** Adapters by name. */
export class AdapterStore {
  readonly #model: Adaptable;
  readonly #bank: AdapterBank;
  readonly #budget: number;
  readonly #load: NonNullable<AdapterStoreOptions["load"]>;
  readonly #entries = new Map<string, Entry>();
  /** All that take memory, also those whose name is gone. */
  readonly #banked = new Set<Entry>();
  /** Who waits for room. */
  readonly #waiting: (() => void)[] = [];
  #clock = 0;
  #loads = 0;
  #evictions = 0;

  /**
   * @param model What they are for.
   * @param bank Where they lie.
   * @param options How much room they have.
   */
  constructor(model: Adaptable, bank: AdapterBank, options: AdapterStoreOptions = {}) {
    this.#model = model;
    this.#bank = bank;
    this.#budget = options.bytes ?? 128 * 2 ** 20;
    this.#load = options.load ?? ((source, options) => Lora.load(source, options));
  }

  /** The names that may be asked for, in the order in which they came. */
  get names(): string[] {
    return [...this.#entries.keys()];
  }

  /** What it holds. */
  get state(): AdapterStoreState {
    return {
      known: this.#entries.size,
      loaded: [...this.#entries.values()].filter(({ banked }) => banked).length,
      bytes: this.#bank.bytes,
      loads: this.#loads,
      evictions: this.#evictions,
    };
  }

  /**
   * Whether a name is known.
   *
   * @param name It.
   */
  has(name: string): boolean {
    return this.#entries.has(name);
  }

  /**
   * Makes a name known; one that was known stands for the new source from now on.
   *
   * @param name What requests call it.
   * @param source A directory, an http(s) URL or a Hub id; it is loaded when it is first asked for.
   */
  add(name: string, source: string): void {
    this.delete(name);
    this.#entries.set(name, { name, source, loading: null, banked: null, users: 0, used: 0, known: true });
  }

  /**
   * Forgets a name; requests that have its adapter keep it.
   *
   * @param name It.
   * @returns Whether it was known.
   */
  delete(name: string): boolean {
    const entry = this.#entries.get(name);
    if (!entry) return false;
    this.#entries.delete(name);
    entry.known = false;
    this.#drop(entry);
    return true;
  }

  /**
   * An adapter, loaded if it is not there. Nobody else waits for that.
   *
   * @param name Its name.
   * @param signal Ends the waiting.
   * @returns It, until it is released.
   * @throws {WhetError} "option" for a name that is not known, "resource" for one that never has room, and whatever loading
   * throws: the next who asks tries again.
   */
  async acquire(name: string, signal?: AbortSignal): Promise<AdapterLease> {
    const entry = this.#entries.get(name);
    if (!entry) throw new WhetError("option", `model: there is no adapter ${JSON.stringify(name)}`);
    entry.users++;
    entry.used = ++this.#clock;
    try {
      while (!entry.banked) {
        if (!entry.loading) {
          entry.loading = this.#bring(entry).finally(() => entry.loading = null);
          entry.loading.catch(() => {}); // Whoever waits hears of it; perhaps nobody does any more.
        }
        await orAborted(entry.loading, signal);
      }
    } catch (error) {
      this.#leave(entry);
      throw error;
    }
    let released = false;
    return {
      adapter: entry.banked,
      release: () => {
        if (released) return;
        released = true;
        this.#leave(entry);
      },
    };
  }

  #leave(entry: Entry): void {
    entry.users--;
    if (!entry.known) this.#drop(entry);
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** Loads an adapter, and puts it into the bank when there is room. */
  async #bring(entry: Entry): Promise<void> {
    this.#loads++;
    using lora = await this.#load(entry.source, {});
    lora.checkFits(this.#model);
    if (this.#bank.chunkBytes(lora) > this.#budget) {
      throw new WhetError(
        "resource",
        `adapter ${
          JSON.stringify(entry.name)
        } does not fit the memory for adapters, ${this.#budget} bytes; allow more`,
      );
    }
    while (!this.#makeRoom(lora)) {
      if (entry.users === 0) return; // Nobody wants it any more.
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    if (entry.users === 0 && !entry.known) return; // Nobody wants it, and nobody ever will.
    entry.banked = this.#bank.add(lora);
    this.#banked.add(entry);
  }

  /**
   * Whether there is room, after those went that were not used for the longest time, as far as they have to: one of the
   * same shape, whose place is free then, or a chunk's all.
   */
  #makeRoom(lora: Lora): boolean {
    while (this.#bank.bytes + this.#bank.grows(lora) > this.#budget) {
      const held = new Set<object>();
      for (const { users, banked } of this.#banked) if (users > 0) held.add(banked!.chunk);
      let oldest: Entry | null = null;
      for (const entry of this.#banked) {
        const helps = !held.has(entry.banked!.chunk) || this.#bank.isLike(entry.banked!, lora);
        if (entry.users === 0 && helps && (!oldest || entry.used < oldest.used)) oldest = entry;
      }
      if (!oldest) return false;
      this.#evictions++;
      this.#drop(oldest);
    }
    return true;
  }

  #drop(entry: Entry): void {
    if (!entry.banked || entry.users > 0) return;
    this.#bank.remove(entry.banked);
    entry.banked = null;
    this.#banked.delete(entry);
  }
}

/** A promise, or the signal's reason if that comes first. */
async function orAborted<T>(promise: Promise<T>, signal?: AbortSignal): Promise<T> {
  if (!signal) return await promise;
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
