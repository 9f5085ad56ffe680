/**
 * Models and data that peers compute with: each made once a run, in a folder that goes away, when it is asked for.
 *
 * @module
 */

/** Which files. */
export interface FilesOptions {
  /** HH-RLHF dialogues. */
  data: string;
  /** Small ones. */
  quick: boolean;
  /** Takes lines about what is made. */
  note: (line: string) => void;
}

/** Dialogues, as text for Whet and as tokens for others. */
export interface DialogueFiles {
  /** JSON lines. */
  jsonl: string;
  /** A list of tokens and counts. */
  encoded: string;
  /** How many tokens there are. */
  tokens: number;
}

/** Prompts and answers, and their tokens. */
export interface RewardPairs {
  /** As text, for Whet. */
  pairs: { prompt: string; response: string }[];
  /** As tokens, for others. */
  ids: number[][];
}

/** The files, and how they are made. */
export class Files implements AsyncDisposable {
  readonly #folder: string;
  readonly #made = new Map<string, Promise<string>>();

  /** @param options Which. */
  constructor(private readonly options: FilesOptions) {
    this.#folder = Deno.makeTempDirSync({ prefix: "whet-bench-" });
  }

  /** A GPT-2 124M of random weights, f32, in Hugging Face's format. */
  model(): Promise<string> {
    const layers = this.options.quick ? "2" : "12";
    return this.#make("f32", (path) => ["model", path, `${this.#folder}/adapter`, layers]);
  }

  /** An adapter for it that was not trained yet: rank 8 on c_attn. */
  async adapter(): Promise<string> {
    await this.model();
    return `${this.#folder}/adapter`;
  }

  /** The model in Whet's q8. */
  async quantized(): Promise<string> {
    const model = await this.model();
    return await this.#make("q8", (path) => ["whet", model, path, "q8"]);
  }

  /** The model for llama.cpp. */
  async gguf(type: "f32" | "q8_0"): Promise<string> {
    const model = await this.model();
    return await this.#make(`${type}.gguf`, (path) => ["gguf", model, path, type]);
  }

  /** The model for transformers.js. */
  async onnx(): Promise<string> {
    const model = await this.model();
    return await this.#make("onnx", (path) => ["onnx", model, path]);
  }

  /** The first dialogues of the data that fit the window. */
  async dialogues(count: number): Promise<DialogueFiles> {
    const encoded = `${this.#folder}/dialogues.json`;
    const { data } = this.options;
    const jsonl = await this.#make(
      "dialogues.jsonl",
      (path) => ["dialogues", data, path, encoded, `${count}`],
    );
    const examples: { tokens: number[] }[] = JSON.parse(await Deno.readTextFile(encoded));
    return { jsonl, encoded, tokens: examples.reduce((sum, { tokens }) => sum + tokens.length, 0) };
  }

  /** A DeBERTa-v3 large (24 layers, 1024 wide, 128,100 tokens) of random weights that gives one score, f32. */
  reward(): Promise<string> {
    return this.#make("reward", (path) => ["reward", path, this.options.quick ? "2" : "24"]);
  }

  /** Prompts and answers of the data of about 200 tokens, by that model's tokenizer. */
  async rewardPairs(count: number): Promise<RewardPairs> {
    const model = await this.reward();
    const { data } = this.options;
    return JSON.parse(
      await Deno.readTextFile(
        await this.#make(`pairs-${count}.json`, (path) => ["pairs", data, model, path, `${count}`]),
      ),
    );
  }

  /** Removes them. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled(this.#made.values());
    this.remove();
  }

  /** Removes them at once. */
  remove(): void {
    try {
      Deno.removeSync(this.#folder, { recursive: true });
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  #make(name: string, args: (path: string) => string[]): Promise<string> {
    const path = `${this.#folder}/${name}`;
    const make = async () => {
      this.options.note(`  making ${name}`);
      const script = new URL("../models/make.ts", import.meta.url).href;
      const { success, stderr } = await new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", "--quiet", script, ...args(path)],
        env: { NO_COLOR: "1" },
        stderr: "piped",
      }).output();
      if (success) return path;
      const said = new TextDecoder().decode(stderr).split("\n").find((line) => /error/i.test(line));
      throw new Error(`${name} could not be made: ${said ?? "no reason given"}`);
    };
    if (!this.#made.has(name)) this.#made.set(name, make());
    return this.#made.get(name)!;
  }
}
