/**
 * LoRA (Hu et al. 2021): the update of a frozen weight, learned as a product of two narrow matrices.
 *
 * @module
 */
import { WhetError } from "../errors.ts";
import { type AdapterConfig, type AdapterModule, readAdapter, writeAdapter } from "../format/peft.ts";
import { openRepository, type SourceOptions } from "../format/source.ts";
import type { Backend } from "../tensor/backend.ts";
import type { Linear, LowRank } from "../tensor/ops.ts";
import { ParameterLayout, type Parameters } from "../tensor/parameters.ts";
import { uniform } from "../tensor/random.ts";

/** How an adapter is shaped; what is not given has the value in brackets. */
export interface LoraOptions {
  /** R, the update's rank [8]. */
  rank?: number;
  /** The update is scaled by alpha / R [16]. */
  alpha?: number;
  /** Share of the adapter's inputs dropped in training [0]. */
  dropout?: number;
  /** Layers to adapt, by the ends of their names: `c_attn`, `c_proj`, `c_fc`, `attn.c_proj`, …, or `"all-linear"` [`["c_attn"]`]. */
  targets?: readonly string[] | "all-linear";
  /** Scales by alpha / sqrt(R) instead (Kalajdzievski 2023) [false]. */
  rsLora?: boolean;
  /** Seed of the initial A [0]. */
  seed?: number;
}

/** An adapter's settings, as its file has them. */
export type LoraConfig = AdapterConfig;

/** One adapted layer's matrices, and the factor on their product. */
export interface LoraModule extends AdapterModule {
  /** alpha / R, or alpha / sqrt(R). */
  readonly scaling: number;
}

/** What an adapter is made for: anything with named linear layers. */
export interface Adaptable {
  /** Its name, for errors and for the adapter's file. */
  readonly name: string;
  /** Its linear layers. */
  linears(): Map<string, Linear>;
}

/**
 * A LoRA adapter: for every layer that it adapts, A (R, in) and B (out, R).
 *
 * @example
 * ```ts
 * import { GPT2, Lora } from "../../mod.ts";
 *
 * using model = await GPT2.load("nano");
 * using lora = Lora.create(model, { rank: 4, alpha: 8, targets: ["c_attn", "c_proj"] });
 * console.log(lora.parameterCount);
 * ```
 */
export class Lora implements Disposable {
  #values: Parameters | null = null;
  /** Whether training may have changed the backend's copy. */
  #trained = false;
  #disposed = false;

  private constructor(
    /** Its settings. */
    readonly config: LoraConfig,
    /** The matrices by layer name, as created or loaded; once attached, the backend's copy is the living one. */
    readonly modules: ReadonlyMap<string, LoraModule>,
    /** Where it was loaded from, for errors. */
    readonly name: string,
  ) {}

  /**
   * A new adapter: A uniform in ±1 / sqrt(in) as PEFT has it, B zero, so that it changes nothing yet.
   *
   * @param model The model that it is for.
   * @param options Rank, alpha, targets, …
   * @returns The adapter, not attached.
   * @throws {WhetError} "option" where a value makes no sense or a target matches no layer.
   */
  static create(model: Adaptable, options: LoraOptions = {}): Lora {
    const { rank = 8, alpha = 16, dropout = 0, targets = ["c_attn"], rsLora = false, seed = 0 } = options;
    if (!Number.isSafeInteger(seed)) {
      throw new WhetError("option", `seed: expected a whole number, got ${seed}`);
    }
    if (!Number.isInteger(rank) || rank < 1 || rank > 4096) {
      throw new WhetError("option", `rank: expected a whole number from 1 to 4096, got ${rank}`);
    }
    if (!Number.isFinite(alpha) || alpha <= 0) {
      throw new WhetError("option", `alpha: expected a number above 0, got ${alpha}`);
    }
    if (!(dropout >= 0 && dropout < 1)) {
      throw new WhetError("option", `dropout: expected a number from 0 to below 1, got ${dropout}`);
    }
    const linears = model.linears();
    const names = targets === "all-linear" ? [...linears.keys()] : matchTargets([...linears.keys()], targets);
    const scaling = alpha / (rsLora ? Math.sqrt(rank) : rank);
    const modules = new Map(names.map((name, index) => {
      const [inFeatures, outFeatures] = linears.get(name)!.weight.shape;
      const bound = 1 / Math.sqrt(inFeatures);
      const key = [seed >>> 0, index] as const;
      const A = new Float32Array(rank * inFeatures);
      for (let i = 0; i < A.length; i++) A[i] = (2 * uniform(i, key) - 1) * bound;
      const B = new Float32Array(outFeatures * rank);
      return [name, { A, B, rank, inFeatures, outFeatures, scaling }];
    }));
    const suffixes = targets === "all-linear"
      ? [...new Set(names.map((name) => name.split(".").slice(3).join(".")))]
      : [...targets];
    return new Lora(
      {
        rank,
        alpha,
        dropout,
        targets: suffixes,
        rsLora,
        rankPattern: {},
        alphaPattern: {},
        baseModel: model.name,
      },
      modules,
      "a new adapter",
    );
  }

  /**
   * Loads an adapter in PEFT's format (adapter_config.json, adapter_model.safetensors).
   *
   * @param source A directory, an http(s) URL of one, or a Hub id.
   * @param options Progress and cancelling.
   * @returns The adapter, not attached.
   * @throws {WhetError} "format" where a file is broken or uses what Whet does not implement, "network" …
   */
  static async load(source: string, options: SourceOptions = {}): Promise<Lora> {
    const repository = await openRepository(source, options);
    const { config, modules } = await readAdapter(repository);
    return new Lora(...ofWholeModel(config, modules), repository.name);
  }

  /** Numbers that training changes. */
  get parameterCount(): number {
    return [...this.modules.values()].reduce((sum, { A, B }) => sum + A.length + B.length, 0);
  }

  /**
   * Saves it in PEFT's format; the directory is made.
   *
   * @param directory Where to.
   * @throws {WhetError} "resource" where the disk is full or permission is missing.
   */
  async save(directory: string): Promise<void> {
    await writeAdapter(directory, { config: this.config, modules: await this.#read() });
  }

  /**
   * The adapter's values in a backend's memory, put there at the first call, for training.
   *
   * @param backend The backend of the model that it is attached to.
   * @returns Its parameters, named as in its file.
   * @throws {WhetError} "mismatch" if it lives in another backend already, "disposed".
   *
   * @internal
   */
  bind(backend: Backend): Parameters {
    const values = this.place(backend);
    this.#trained = true;
    return values;
  }

  /**
   * As {@linkcode Lora.bind}, for use without training.
   *
   * @internal
   */
  place(backend: Backend): Parameters {
    if (this.#values?.backend === backend) return this.#values;
    const values = this.#living();
    if (values) {
      throw new WhetError(
        "mismatch",
        `${this.name} is in use on another backend; call its unbind() first, or save it and load it again for this one`,
      );
    }
    return this.#values = this.#upload(backend);
  }

  /**
   * Whether its values still lie there.
   *
   * @internal
   */
  holds(values: Parameters): boolean {
    return this.#values === values;
  }

  /**
   * Takes its values back from the backend's memory, so that it outlives the model that it was trained
   * on and can be attached to another. A model that it is still attached to must detach it.
   *
   * @throws {WhetError} "disposed"
   */
  async unbind(): Promise<void> {
    for (const [name, { A, B }] of await this.#read()) {
      this.modules.get(name)!.A.set(A);
      this.modules.get(name)!.B.set(B);
    }
    this.#free();
  }

  /**
   * The pairs to hang on a model's linear layers, by layer name.
   *
   * @internal
   */
  lowRanks(backend: Backend): Map<string, LowRank> {
    const { tensors } = this.place(backend);
    return new Map([...this.modules].map(([name, { scaling }]) => [name, {
      A: tensors.get(`${name}.lora_A.weight`)!,
      B: tensors.get(`${name}.lora_B.weight`)!,
      scaling,
      dropout: this.config.dropout,
    }]));
  }

  /**
   * Checks that every layer that it adapts is there, in its size.
   *
   * @param model The model that it is to be attached to.
   * @throws {WhetError} "mismatch" where a layer is missing or of another size.
   *
   * @internal
   */
  checkFits(model: Adaptable): void {
    const linears = model.linears();
    for (const [name, { inFeatures, outFeatures }] of this.modules) {
      const linear = linears.get(name);
      if (!linear) {
        throw new WhetError(
          "mismatch",
          `${this.name} is for another model: ${model.name} has no layer ${name}`,
        );
      }
      const [width, out] = linear.weight.shape;
      if (width !== inFeatures || out !== outFeatures) {
        throw new WhetError(
          "mismatch",
          `${this.name} is for another model: its ${name} is ${inFeatures} × ${outFeatures}, ${model.name}'s is ${width} × ${out}`,
        );
      }
    }
  }

  /** Frees its memory; what was trained and not saved is lost. */
  [Symbol.dispose](): void {
    this.#disposed = true;
    this.#free();
  }

  #free(): void {
    this.#values?.[Symbol.dispose]();
    this.#values = null;
    this.#trained = false;
  }

  #upload(backend: Backend): Parameters {
    const layout = new ParameterLayout(
      [...this.modules].flatMap(([name, { rank, inFeatures, outFeatures }]) => [
        { name: `${name}.lora_A.weight`, shape: [rank, inFeatures], decays: true },
        { name: `${name}.lora_B.weight`, shape: [outFeatures, rank], decays: true },
      ]),
    );
    const values = layout.allocate(backend);
    for (const [name, { A, B }] of this.modules) {
      values.write(`${name}.lora_A.weight`, A);
      values.write(`${name}.lora_B.weight`, B);
    }
    return values;
  }

  /** Its modules with the values that are valid now. */
  async #read(): Promise<Map<string, LoraModule>> {
    const values = this.#living();
    const modules = new Map(this.modules);
    for (const [name, module] of values ? modules : []) {
      const A = await values!.read(`${name}.lora_A.weight`);
      const B = await values!.read(`${name}.lora_B.weight`);
      modules.set(name, { ...module, A, B });
    }
    return modules;
  }

  /** The backend's copy of its values; null if there is none, or it went with its backend and was no more than a copy. */
  #living(): Parameters | null {
    if (this.#disposed) throw new WhetError("disposed", `${this.name} was disposed; load or create it again`);
    if (!this.#values) return null;
    try {
      this.#values.backend.flush(); // Throws if the backend is no more.
    } catch (cause) {
      if (!this.#trained) return this.#values = null;
      if (!(cause instanceof WhetError && cause.code === "disposed")) throw cause;
      throw new WhetError(
        "disposed",
        `${this.name} was trained on a model that is disposed, and went with it; save it, or call its unbind(), before`,
        { cause },
      );
    }
    return this.#values;
  }
}

/** An adapter of a bare GPT2Model, whose layers are named `h.0.…`, as one of the whole model, `transformer.h.0.…`. */
function ofWholeModel(
  config: LoraConfig,
  modules: ReadonlyMap<string, LoraModule>,
): [LoraConfig, ReadonlyMap<string, LoraModule>] {
  const isBare = (path: string) => /^h\.\d/.test(path);
  if (![...modules.keys()].every(isBare)) return [config, modules];
  // What says which layers it is about ends the same way; only what begins at the beginning changes.
  const renamed = (table: Readonly<Record<string, number>>) =>
    Object.fromEntries(
      Object.entries(table).map(([key, value]) => [key.replace(/^\^/, "^transformer."), value]),
    );
  const { targets, rankPattern, alphaPattern } = config;
  return [
    {
      ...config,
      targets: typeof targets === "string" && targets !== "all-linear" ? [...modules.keys()] : targets,
      rankPattern: renamed(rankPattern),
      alphaPattern: renamed(alphaPattern),
    },
    new Map([...modules].map(([path, module]) => [`transformer.${path}`, module])),
  ];
}

/** The layers whose names end in one of the targets, whole parts only, as PEFT matches a list. */
function matchTargets(names: readonly string[], targets: readonly string[]): string[] {
  const matches = (name: string, target: string) => name === target || name.endsWith(`.${target}`);
  if (!Array.isArray(targets)) {
    throw new WhetError("option", `targets: expected a list of layer names or "all-linear", got ${targets}`);
  }
  if (targets.length === 0) {
    throw new WhetError("option", "targets: expected at least one layer name, such as c_attn");
  }
  for (const target of targets) {
    if (!names.some((name) => matches(name, target))) {
      const known = [...new Set(names.map((name) => name.split(".").slice(3).join(".")))];
      throw new WhetError(
        "option",
        `targets: "${target}" matches no layer; there are ${known.join(", ")} (or just their ends)`,
      );
    }
  }
  return names.filter((name) => targets.some((target) => matches(name, target)));
}
