/**
 * Opens the model that a command names, with its adapter, or a reward model.
 *
 * @module
 */
import type { Progress as Loaded } from "../format/source.ts";
import { GPT2 } from "../gpt2.ts";
import type { LoadOptions } from "../model/load.ts";
import { Lora } from "../model/lora.ts";
import { Progress } from "../report/progress.ts";
import type { Scorer } from "../score/scorer.ts";
import type { COMMON, MODEL } from "./command_flags.ts";
import type { Values } from "./flags.ts";
import { note } from "./output.ts";

/** What the flags of every model command give. */
type Shared = "backend" | "weights" | "threads" | "arithmetic" | "strict";

/** Values of flags of commands that take a model. */
export type ModelValues = Values<Omit<typeof MODEL, "model"> & typeof COMMON> & { adapter?: string };

/**
 * Loads a model, showing what arrives.
 *
 * @param source The value of `--model`.
 * @param values The other flags.
 * @returns The model, with the adapter of `--adapter` attached.
 */
export async function openModel(source: string, values: ModelValues): Promise<GPT2> {
  const { quiet } = values;
  const loading = showLoading(quiet);
  try {
    const model = await GPT2.load(source, { ...loadOptions(values), ...loading });
    try {
      if (values.adapter) model.attach(await Lora.load(values.adapter, loading));
    } catch (error) {
      model[Symbol.dispose]();
      throw error;
    }
    loading.finish();
    if (!quiet) note(describe(model));
    return model;
  } finally {
    loading.finish();
  }
}

/**
 * Loads a reward model, showing what arrives.
 *
 * @param source The value of `--reward-model`.
 * @param values How it is stored, where it computes.
 * @param signal Ends the loading.
 * @returns The model; whoever opened it disposes it.
 */
export async function openRewardModel(
  source: string,
  values: Pick<ModelValues, Shared | "quiet">,
  signal?: AbortSignal,
): Promise<Scorer & Disposable> {
  const { RewardModel } = await import("../score/reward.ts");
  const loading = showLoading(values.quiet);
  try {
    return await RewardModel.load(source, { ...loadOptions(values), signal, ...loading });
  } finally {
    loading.finish();
  }
}

/**
 * The flags that all models share, as the library takes them.
 *
 * @param values The flags.
 */
export function loadOptions(
  { backend, weights, threads, arithmetic, strict }: Pick<ModelValues, Shared>,
): LoadOptions {
  return {
    backend: backend as "auto" | "webgpu" | "wasm" | undefined,
    weights: weights as "f32" | "f16" | "q8" | "q4" | undefined,
    threads,
    arithmetic: arithmetic as "f32" | "f16" | "i8" | undefined,
    ...(strict ? { instructionSet: "strict" } : {}),
  };
}

function describe(model: GPT2): string {
  const { n_layer, n_embd, n_head } = model.config;
  const millions = (model.parameterCount / 1e6).toPrecision(3);
  return `${model.name}: ${millions} M parameters (${n_layer} layers, ${n_embd} wide, ${n_head} heads), ` +
    `${model.weights}, on ${model.backend.description}`;
}

/** What takes less is not worth a line, in milliseconds. */
const PATIENCE = 500;

/** What loaders take to show what they do, and its end. */
interface Loading {
  /** Bytes of a file. */
  onProgress: (progress: Loaded) => void;
  /** A line for people. */
  onNote: (text: string) => void;
  /** Nothing more is loaded. */
  finish: () => void;
}

/** Progress of files that take a while; quick ones show nothing. */
export function showLoading(quiet: boolean): Loading {
  let current: { file: string; begin: number; bar: Progress | null } | null = null;
  const finish = () => {
    current?.bar?.finish();
    current = null;
  };
  return {
    finish,
    onNote: (text) => quiet || note(text),
    onProgress: ({ file, loaded, total }) => {
      if (quiet) return;
      if (current?.file !== file) {
        finish();
        current = { file, begin: performance.now(), bar: null };
      }
      if (performance.now() - current.begin < PATIENCE) return;
      current.bar ??= new Progress({ total, label: file, unit: "bytes" });
      current.bar.update({ done: loaded });
    },
  };
}

/** `--targets` as the library takes it. */
export function readTargets(text: string): string[] | "all-linear" {
  return text === "all-linear"
    ? text
    : text.split(",").map((target) => target.trim()).filter((target) => target !== "");
}

/** Only the entries that were given, so that the library's own defaults hold for the rest. */
export function given<T extends Record<string, unknown>>(options: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: NonNullable<T[K]>;
  };
}
