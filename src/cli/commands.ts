/**
 * The commands: what each is for, its flags, and where its work is done.
 *
 * @module
 */
import { CHAT, DEVICES, GENERATE, MERGE, QUANTIZE, SCORE, SERVE, STUDY, TRAIN } from "./command_flags.ts";
import type { Flags } from "./flags.ts";

/** A command. */
export interface Command {
  /** What it does, for the list. */
  summary: string;
  /** What comes after its name. */
  usage: string;
  /** Its flags. */
  flags: Flags;
  /** The permissions that it needs, instead of -A. */
  permissions: string;
  /** Loads its work, which gives what `--json` prints. */
  // deno-lint-ignore no-explicit-any
  load(): Promise<(values: any) => Promise<unknown>>;
}

const READS =
  "--allow-read for local files; for a Hub id --allow-net, --allow-env and --allow-write of its cache";

/** The commands by name. */
export const commands: Readonly<Record<string, Command>> = {
  train: {
    summary: "fine-tune a model on a file of texts or dialogues",
    usage: "--model M --data D --out DIR [flags]",
    flags: TRAIN,
    permissions: `--allow-write for DIR; ${READS}`,
    load: async () => (await import("./train.ts")).runTrain,
  },
  generate: {
    summary: "continue a prompt",
    usage: "--model M --prompt P [flags]",
    flags: GENERATE,
    permissions: `none for nano; ${READS}`,
    load: async () => (await import("./generate.ts")).runGenerate,
  },
  chat: {
    summary: "talk with a model in the terminal",
    usage: "--model M [flags]",
    flags: CHAT,
    permissions: `none for nano; ${READS}`,
    load: async () => (await import("./chat.ts")).runChat,
  },
  score: {
    summary: "a model's loss over a file, or its answers scored by a reward model or a judge",
    usage: "--model M|--reward-model R|--judge URL --data D [flags]",
    flags: SCORE,
    permissions: `${READS}; for a judge --allow-net, and --allow-env of its key's variable`,
    load: async () => (await import("./score.ts")).runScore,
  },
  merge: {
    summary: "fold an adapter into its model",
    usage: "--model M --adapter DIR --out DIR [flags]",
    flags: MERGE,
    permissions: `--allow-write for DIR; ${READS}`,
    load: async () => (await import("./merge.ts")).runMerge,
  },
  quantize: {
    summary: "store a model's weights in 8, 4 or 16 bits",
    usage: "--model M --weights FORMAT --out DIR [flags]",
    flags: QUANTIZE,
    permissions: `--allow-write for DIR; ${READS}`,
    load: async () => (await import("./quantize.ts")).runQuantize,
  },
  study: {
    summary: "the whole experiment: fine-tune, loss curves, answers before and after, one report",
    usage: "[flags]",
    flags: STUDY,
    permissions: `none with no flags (--allow-read and --allow-write of DIR for the report); ${READS}`,
    load: async () => (await import("./study.ts")).runStudy,
  },
  serve: {
    summary: "serve a model and its adapters over HTTP, by OpenAI's API",
    usage: "[flags]",
    flags: SERVE,
    permissions:
      `--allow-net; --allow-read for a worker to compute in, without which the server does not answer meanwhile; ${READS}`,
    load: async () => (await import("./serve.ts")).runServe,
  },
  devices: {
    summary: "the backends that there are, and which one is picked",
    usage: "[flags]",
    flags: DEVICES,
    permissions: "none",
    load: async () => (await import("./devices.ts")).runDevices,
  },
};
