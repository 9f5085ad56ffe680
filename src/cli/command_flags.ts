/**
 * Each command's flags.
 *
 * @module
 */
import type { Flags } from "./flags.ts";

/** Flags of every command. */
export const COMMON = {
  backend: {
    kind: "text",
    value: "NAME",
    choices: ["auto", "webgpu", "wasm"],
    help: "where to compute",
    standard: "auto",
  },
  json: { kind: "switch", help: "print one JSON object, and nothing else, on standard output" },
  quiet: { kind: "switch", help: "no progress and no notes" },
  help: { kind: "switch", help: "show this" },
} as const satisfies Flags;

/** Flags of commands that take a model. */
export const MODEL = {
  model: {
    kind: "text",
    value: "M",
    help: "a directory, a URL, a Hub id such as openai-community/gpt2, or nano",
    required: true,
  },
  weights: {
    kind: "text",
    value: "FORMAT",
    choices: ["f32", "f16", "q8", "q4"],
    help: "how the model's weights are stored",
    standard: "as whet saved them, else f32",
  },
  threads: {
    kind: "count",
    most: 256,
    value: "N",
    help: "threads of the WASM backend",
    standard: "all cores",
  },
  arithmetic: {
    kind: "text",
    value: "FORMAT",
    choices: ["f32", "f16", "i8"],
    help: "what WebGPU multiplies matrices with; f16 and i8 are less exact",
    standard: "f32",
  },
  strict: { kind: "switch", help: "WASM without relaxed instructions: the same bits on every machine" },
} as const satisfies Flags;

/** The adapter beside a model. */
export const ADAPTER = {
  adapter: {
    kind: "text",
    value: "DIR",
    help: "a LoRA adapter in PEFT's format: a directory, a URL or a Hub id",
  },
} as const satisfies Flags;

const DATA = {
  kind: "text",
  value: "D",
  help:
    'JSON lines, plain or gzip: HH-RLHF pairs, {"text"} or {"prompt","response"}; a file, a URL or a Hub id',
} as const;

/** Flags of `train`. */
export const TRAIN = {
  ...MODEL,
  data: { ...DATA, required: true },
  out: {
    kind: "text",
    value: "DIR",
    help: "where the adapter, metrics.jsonl and loss.svg go",
    required: true,
  },
  method: {
    kind: "text",
    choices: ["lora", "full"],
    help: "train an adapter, or all weights",
    standard: "lora",
  },
  rank: { kind: "count", most: 4096, value: "R", help: "the adapter's rank", standard: "8" },
  alpha: { kind: "positive", value: "X", help: "the adapter's scaling is alpha / rank", standard: "16" },
  dropout: {
    kind: "number",
    below: 1,
    value: "X",
    help: "share of the adapter's inputs dropped",
    standard: "0",
  },
  targets: {
    kind: "text",
    value: "NAMES",
    help: "layers to adapt, separated by commas, or all-linear",
    standard: "c_attn",
  },
  rslora: { kind: "switch", help: "scale by alpha / sqrt(rank)" },
  steps: { kind: "count", value: "N", help: "optimizer steps" },
  epochs: { kind: "count", value: "N", help: "passes over the data, instead of --steps", standard: "1" },
  "batch-size": { kind: "count", value: "B", help: "rows of a batch", standard: "4" },
  "seq-len": { kind: "count", least: 2, value: "T", help: "tokens of a row", standard: "256, or the window" },
  accumulate: { kind: "count", value: "N", help: "batches that make one step", standard: "1" },
  lr: { kind: "positive", value: "X", help: "peak learning rate", standard: "2e-4; 5e-5 with --method full" },
  schedule: {
    kind: "text",
    choices: ["constant", "linear", "cosine"],
    help: "after warm-up",
    standard: "linear",
  },
  "warmup-steps": {
    kind: "whole",
    value: "N",
    help: "steps over which the learning rate rises",
    standard: "0",
  },
  "weight-decay": { kind: "number", value: "X", help: "decoupled decay of matrices", standard: "0" },
  "max-grad-norm": {
    kind: "number",
    value: "X",
    help: "clip gradients to this norm; 0 for never",
    standard: "1",
  },
  seed: { kind: "whole", value: "S", help: "of the adapter's start, the order and dropout", standard: "0" },
  "loss-on": { kind: "text", choices: ["all", "responses"], help: "which tokens count", standard: "all" },
  "no-packing": { kind: "switch", help: "one example a row" },
  "no-shuffle": { kind: "switch", help: "the data's own order" },
  "eval-data": { ...DATA, help: "held-out data to evaluate on" },
  "eval-every": { kind: "count", value: "N", help: "steps between evaluations", standard: "at the end" },
  "checkpoint-every": {
    kind: "count",
    value: "N",
    help: "steps between checkpoints in DIR/checkpoint",
    standard: "100",
  },
  resume: { kind: "switch", help: "go on from the last checkpoint in DIR, or begin if there is none" },
  ...COMMON,
} as const satisfies Flags;

const SAMPLING = {
  "max-tokens": { kind: "count", value: "N", help: "tokens at most", standard: "128" },
  temperature: {
    kind: "number",
    most: 100,
    value: "X",
    help: "0 takes the likeliest token each time",
    standard: "1",
  },
  "top-k": { kind: "whole", value: "K", help: "only the K likeliest tokens; 0 for all", standard: "0" },
  "top-p": {
    kind: "positive",
    most: 1,
    value: "P",
    help: "only the likeliest tokens of this probability together",
    standard: "1",
  },
  "repetition-penalty": {
    kind: "positive",
    most: 100,
    value: "X",
    help: "above 1 avoids what was there already",
    standard: "1",
  },
  seed: { kind: "whole", value: "S", help: "the same seed gives the same text", standard: "random" },
} as const satisfies Flags;

/** Flags of `generate`. */
export const GENERATE = {
  ...MODEL,
  ...ADAPTER,
  prompt: { kind: "text", value: "P", help: "the text to continue", required: true },
  ...SAMPLING,
  stop: { kind: "texts", value: "TEXT", help: "end when it appears; may be given several times" },
  ...COMMON,
} as const satisfies Flags;

/** Flags of `chat`. */
export const CHAT = { ...MODEL, ...ADAPTER, ...SAMPLING, ...COMMON } as const satisfies Flags;

/** Flags of `score`. */
export const SCORE = {
  ...MODEL,
  model: { ...MODEL.model, required: false },
  ...ADAPTER,
  data: { ...DATA, required: true },
  "seq-len": {
    kind: "count",
    least: 2,
    value: "T",
    help: "tokens of a sequence; longer ones are split",
    standard: "the model's window",
  },
  "loss-on": { kind: "text", choices: ["all", "responses"], help: "which tokens count", standard: "all" },
  "reward-model": {
    kind: "text",
    value: "R",
    help: "score each answer by a reward model instead: a directory, a URL or a Hub id",
  },
  pairs: { kind: "switch", help: "how often the reward model prefers the chosen answer to the rejected one" },
  judge: {
    kind: "text",
    value: "URL",
    help: "ask a model behind an OpenAI-compatible API to rate each answer from 1 to 10 instead",
  },
  "judge-model": { kind: "text", value: "NAME", help: "the judge's name there" },
  "judge-key-env": { kind: "text", value: "VAR", help: "the environment variable that holds the API's key" },
  "judge-concurrency": {
    kind: "count",
    most: 256,
    value: "N",
    help: "requests to the judge at a time",
    standard: "4",
  },
  side: {
    kind: "text",
    choices: ["chosen", "rejected"],
    help: "which answer of an HH-RLHF pair is scored or rated",
    standard: "chosen",
  },
  ...COMMON,
} as const satisfies Flags;

/** Flags of `merge`. */
export const MERGE = {
  ...MODEL,
  adapter: { ...ADAPTER.adapter, required: true },
  out: { kind: "text", value: "DIR", help: "where the merged model goes", required: true },
  ...COMMON,
} as const satisfies Flags;

/** Flags of `quantize`. */
export const QUANTIZE = {
  ...MODEL,
  weights: {
    kind: "text",
    value: "FORMAT",
    choices: ["q8", "q4", "f16", "f32"],
    help: "how the weights are stored from then on",
    required: true,
  },
  out: { kind: "text", value: "DIR", help: "where the model goes", required: true },
  ...COMMON,
} as const satisfies Flags;

/** Flags of `study`. */
export const STUDY = {
  ...MODEL,
  model: { ...MODEL.model, required: false, standard: "nano" },
  preset: {
    kind: "text",
    choices: ["study"],
    help: "the study that Whet repeats: GPT-2, HH-RLHF, 60,000 steps, 50 questions, its reward model",
  },
  data: { ...DATA, standard: "the dialogues that are part of Whet" },
  "eval-data": { ...DATA, help: "held-out data", standard: "a tenth of the data, not trained on" },
  out: {
    kind: "text",
    value: "DIR",
    help: "where the report, the adapter and the pictures go; an interrupted study goes on there",
    standard: "whet-study",
  },
  overwrite: { kind: "switch", help: "begin anew, whatever study is in DIR" },
  adapter: { ...ADAPTER.adapter, help: "an adapter to compare with the plain model; nothing is trained" },
  steps: { kind: "count", value: "N", help: "optimizer steps", standard: "300 for nano, else 200" },
  rank: TRAIN.rank,
  alpha: TRAIN.alpha,
  targets: { ...TRAIN.targets, standard: "all-linear; c_attn with --preset study" },
  "batch-size": TRAIN["batch-size"],
  "seq-len": { ...TRAIN["seq-len"], standard: "256, or the model's window" },
  lr: { ...TRAIN.lr, standard: "3e-3 for nano, else 2e-4" },
  "loss-on": { ...TRAIN["loss-on"], standard: "responses for nano's dialogues, else all" },
  "checkpoint-every": { ...TRAIN["checkpoint-every"], help: "steps between checkpoints in DIR/parts" },
  "reward-model": {
    kind: "text",
    value: "R",
    help: "who scores the answers: a DeBERTa reward model's directory, URL or Hub id, or none",
    standard: "none; with a preset its own",
  },
  "reward-weights": { ...MODEL.weights, help: "how the reward model's weights are stored", standard: "f32" },
  questions: {
    kind: "whole",
    value: "N",
    help: "held-out questions to answer",
    standard: "8; 50 with --preset study",
  },
  "max-tokens": {
    ...SAMPLING["max-tokens"],
    help: "tokens of an answer at most",
    standard: "64; 128 with --preset study",
  },
  temperature: { ...SAMPLING.temperature, standard: "0; 0.7 with --preset study" },
  "top-k": SAMPLING["top-k"],
  "top-p": { ...SAMPLING["top-p"], standard: "1; 0.9 with --preset study" },
  seed: { ...TRAIN.seed, help: "of everything random" },
  ...COMMON,
} as const satisfies Flags;

/** Flags of `serve`. */
export const SERVE = {
  ...MODEL,
  model: { ...MODEL.model, required: false, standard: "nano" },
  name: {
    kind: "text",
    value: "NAME",
    help: "what requests call it",
    standard: "its id, or its directory's name",
  },
  adapters: {
    kind: "text",
    value: "DIR",
    help: "a directory of adapters, a directory each; those that come later are found, too",
  },
  adapter: {
    kind: "texts",
    value: "NAME=SOURCE",
    help: "an adapter from a directory, a URL or a Hub id, instead of --adapters; may be given several times",
  },
  "manage-adapters": {
    kind: "switch",
    help: "let requests add and remove adapters: whoever may ask may have any file read",
  },
  "adapter-mb": { kind: "count", most: 65536, value: "N", help: "memory for adapters, MiB", standard: "128" },
  "reward-model": {
    kind: "text",
    value: "R",
    help: "score answers, at /v1/score, by a reward model: a directory, a URL or a Hub id",
  },
  host: { kind: "text", value: "ADDRESS", help: "address to listen at", standard: "127.0.0.1" },
  port: { kind: "whole", most: 65535, value: "N", help: "port; 0 for any that is free", standard: "8000" },
  "api-key-env": {
    kind: "text",
    value: "VAR",
    help: "the environment variable that holds the key which requests must bring",
  },
  cors: {
    kind: "texts",
    value: "ORIGIN",
    help: "a site whose pages may ask, or *; may be given several times",
  },
  slots: { kind: "count", most: 1024, value: "N", help: "texts that are worked on at once", standard: "16" },
  queue: {
    kind: "whole",
    value: "N",
    help: "texts that wait for their turn; more are refused",
    standard: "64",
  },
  "cache-mb": {
    kind: "count",
    most: 65536,
    value: "N",
    help: "memory for keys and values, MiB",
    standard: "256",
  },
  timeout: {
    kind: "positive",
    most: 86400,
    value: "SECONDS",
    help: "for a request at most",
    standard: "300",
  },
  "max-body": {
    kind: "count",
    most: 2 ** 30,
    value: "BYTES",
    help: "of a request at most",
    standard: "1048576",
  },
  grace: {
    kind: "number",
    most: 86400,
    value: "SECONDS",
    help: "that streams have to finish after SIGTERM or Ctrl-C",
    standard: "30",
  },
  ...COMMON,
  json: { kind: "switch", help: "print { url, model } as JSON on standard output when it is ready" },
} as const satisfies Flags;

/** Flags of `devices`. */
export const DEVICES = COMMON;
