import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { createWasmBackend } from "../src/backend/wasm/backend.ts";
import type { ErrorCode } from "../src/errors.ts";
import type { Progress } from "../src/format/source.ts";
import { GPT2 } from "../src/gpt2.ts";
import type { LoadOptions } from "../src/model/load.ts";
import type { Backend } from "../src/tensor/backend.ts";
import { failure, fixture, inTempDir, type ModelFiles, readModel, writeModel } from "./support/models.ts";

const SEQUENCES = [[1, 5, 200, 7], [9]];

async function logitsOf(source: string, options: LoadOptions = {}): Promise<Float32Array[]> {
  using model = await GPT2.load(source, { backend: "wasm", instructionSet: "strict", ...options });
  return await model.logits(SEQUENCES);
}

/** A test of a changed copy of a fixture. */
function changed(
  claim: string,
  change: (files: ModelFiles) => void,
  work: (directory: string) => Promise<void>,
): void {
  Deno.test(claim, () =>
    inTempDir(async (directory) => {
      const files = await readModel("d16");
      change(files);
      await writeModel(directory, files);
      await work(directory);
    }));
}

/** A test that a changed copy of a fixture is refused, and leaves nothing in a backend that is shared. */
function refused(
  claim: string,
  code: ErrorCode,
  words: readonly string[],
  change: (files: ModelFiles) => void,
): void {
  changed(claim, change, async (directory) => {
    using backend = await createWasmBackend();
    await failure(code, [directory, ...words], () => GPT2.load(directory, { backend }));
    assertEquals(backend.stats().allocatedBytes, 0);
  });
}

function rename({ tensors }: ModelFiles, to: (name: string) => string): void {
  for (const [name, tensor] of [...tensors]) {
    tensors.delete(name);
    tensors.set(to(name), tensor);
  }
}

changed(
  "names with and without `transformer.` are the same parameters",
  (files) => rename(files, (name) => `transformer.${name}`),
  async (directory) => assertEquals(await logitsOf(directory), await logitsOf(fixture("d16/model"))),
);

changed(
  "what stands beside the language model, its masks and other heads, is passed over",
  ({ tensors }) => {
    tensors.set("transformer.h.1.attn.masked_bias", { shape: [], values: Float32Array.of(-1e4) });
    tensors.set("lm_head.weight", { shape: [263, 32], values: new Float32Array(263 * 32) });
    tensors.set("multiple_choice_head.summary.weight", { shape: [1, 32], values: new Float32Array(32) });
  },
  async (directory) => assertEquals(await logitsOf(directory), await logitsOf(fixture("d16/model"))),
);

for (const dtype of ["F16", "BF16"] as const) {
  Deno.test(`${dtype} weights are widened exactly`, () =>
    inTempDir(async (directory) => {
      const files = await readModel("d16");
      // Numbers that both formats hold: eight significant bits, no smaller than 2⁻⁷.
      for (const tensor of files.tensors.values()) {
        tensor.values = tensor.values.map((x) => Math.round(x * 128) / 128);
      }
      await writeModel(`${directory}/full`, files);
      await writeModel(`${directory}/half`, files, { dtype });
      assertEquals(await logitsOf(`${directory}/half`), await logitsOf(`${directory}/full`));
    }));
}

Deno.test("a vocabulary that is padded for speed has logits for the padding, and the same ones as before", () =>
  inTempDir(async (directory) => {
    const files = await readModel("d16");
    const wte = files.tensors.get("wte.weight")!;
    const values = new Float32Array(320 * 32);
    values.set(wte.values);
    files.tensors.set("wte.weight", { shape: [320, 32], values });
    files.config.vocab_size = 320;
    await writeModel(directory, files, { vocabulary: "d16" });
    using model = await GPT2.load(directory, { backend: "wasm" });
    assertEquals([model.tokenizer.vocabSize, model.config.vocab_size], [263, 320]);
    const [padded] = await model.logits([[1, 319]]);
    const [plain] = await logitsOf(fixture("d16/model"));
    assertEquals(padded.length, 2 * 320);
    for (let i = 0; i < 263; i++) assertAlmostEquals(padded[i], plain[i], 1e-5);
    assertEquals(padded[319], 0);
  }));

Deno.test("a model without vocabulary files takes and gives token ids, and text only where GPT-2's may be meant", () =>
  inTempDir(async (directory) => {
    await writeModel(directory, await readModel("d16"));
    using model = await GPT2.load(directory, { backend: "wasm" });
    await failure("mismatch", [directory, "263 tokens", "vocab.json"], async () => {
      for await (const _ of model.generate("Hello")) break;
    });
    const tokens: number[] = [];
    for await (const { token, text } of model.generate([1, 2], { maxTokens: 3, temperature: 0 })) {
      tokens.push(token);
      assertEquals(text, "");
    }
    assertEquals(tokens.length, 3);
  }));

refused("a tensor that is missing is named", "format", ["tensor h.1.ln_2.bias is missing"], ({ tensors }) => {
  tensors.delete("h.1.ln_2.bias");
});
refused(
  "of many that are missing one is named, the others counted",
  "format",
  ["and 12 more is missing"],
  ({ tensors }) => {
    for (const name of [...tensors.keys()]) {
      if (name.startsWith("h.1.") || name === "wpe.weight") {
        tensors.delete(name);
      }
    }
  },
);
refused("a tensor of another shape is named with both", "format", [
  "h.0.mlp.c_fc.weight is [128, 32]",
  "should be [32, 128]",
], ({ tensors }) => {
  tensors.get("h.0.mlp.c_fc.weight")!.shape = [128, 32];
});
refused("a layer too many is told", "format", ["h.2.ln_1.weight has no place"], ({ tensors }) => {
  tensors.set("h.2.ln_1.weight", { shape: [32], values: new Float32Array(32) });
});
refused(
  "a parameter that is there twice is told",
  "format",
  ["wte.weight", "the same parameter"],
  ({ tensors }) => {
    tensors.set("transformer.wte.weight", tensors.get("wte.weight")!);
  },
);
refused(
  "a config with a larger vocabulary than the file's is told",
  "format",
  ["[263, 32]", "[50257, 32]"],
  ({ config }) => {
    config.vocab_size = 50257;
  },
);
refused(
  "absurd sizes are refused before anything is allocated",
  "format",
  ["by config.json it should be"],
  ({ config }) => {
    Object.assign(config, { vocab_size: 10_000_000, n_embd: 65536, n_head: 4096, n_layer: 1000 });
  },
);
refused("heads that do not divide the channels are refused", "format", [
  "config.json: n_embd (32)",
  "n_head (3)",
], ({ config }) => {
  config.n_head = 3;
});
refused(
  "a reward model is told apart",
  "format",
  ["config.json: model_type", "reward model"],
  ({ config }) => {
    config.model_type = "deberta-v2";
  },
);
refused("another architecture is refused", "format", ['model_type is "gpt_neox"'], ({ config }) => {
  config.model_type = "gpt_neox";
});
refused("an output layer of its own is refused", "format", ["tie_word_embeddings"], ({ config }) => {
  config.tie_word_embeddings = false;
});
refused("another activation is refused", "format", ['"relu"'], ({ config }) => {
  config.activation_function = "relu";
});

/** A test that a source is refused. */
function refusedFiles(
  claim: string,
  code: ErrorCode,
  words: readonly string[],
  prepare: (directory: string) => Promise<unknown>,
): void {
  Deno.test(claim, () =>
    inTempDir(async (directory) => {
      await prepare(directory);
      using backend = await createWasmBackend();
      await failure(code, words, () => GPT2.load(directory, { backend }));
      assertEquals(backend.stats().allocatedBytes, 0);
    }));
}

refusedFiles(
  "an empty directory is no model",
  "format",
  ["no config.json there", "Hugging Face"],
  () => Promise.resolve(),
);
refusedFiles("an adapter's directory is no model, and is told apart", "format", [
  "it is an adapter",
  "--adapter",
], (directory) => Deno.writeTextFile(`${directory}/adapter_config.json`, "{}"));
refusedFiles(
  "a config that is no JSON is refused in one line",
  "format",
  ["config.json: not JSON"],
  (directory) => Deno.writeTextFile(`${directory}/config.json`, "{\n  'a':\n 1\n}"),
);
refusedFiles(
  "a config without weights says what is wanted",
  "format",
  ["no model.safetensors"],
  (directory) => Deno.copyFile(fixture("d16/model/config.json"), `${directory}/config.json`),
);
refusedFiles("weights that are cut off are refused", "format", ["model.safetensors"], async (directory) => {
  await writeModel(directory, await readModel("d16"));
  await Deno.truncate(`${directory}/model.safetensors`, 60_000);
});
refusedFiles(
  "a tokenizer with more tokens than the model is refused",
  "mismatch",
  ["262", "259"],
  async (directory) => {
    await writeModel(directory, await readModel("d64"), { vocabulary: "d16" });
  },
);

Deno.test("storage, seed and backend that are unknown are refused before a file is opened", async () => {
  const nowhere = "/nowhere/at/all";
  await failure(
    "option",
    ["weights", "f32, f16, q8, q4", '"q5"'],
    () => GPT2.load(nowhere, { weights: "q5" as "q4" }),
  );
  await failure("option", ["weights"], () => GPT2.random({}, { weights: "f64" as "f32" }));
  await failure("option", ["seed"], () => GPT2.random({ vocab_size: 9 }, { seed: 0.5 }));
  await failure("option", ["backend"], () => GPT2.load(fixture("d16/model"), { backend: "cuda" as "wasm" }));
  await failure("option", [nowhere], () => GPT2.load(nowhere));
});

Deno.test("a random model larger than any memory is refused before it is made", async () => {
  await failure(
    "resource",
    ["wte.weight", "4 GiB"],
    () => GPT2.random({ vocab_size: 10_000_000, n_embd: 65536, n_head: 16 }, { backend: "wasm" }),
  );
  await failure("format", ["config: n_embd"], () => GPT2.random({ n_embd: 2 ** 30 }, { backend: "wasm" }));
});

Deno.test("the same seed gives the same random model, another seed another; storage keeps it near", async () => {
  const shape = { vocab_size: 50, n_positions: 8, n_embd: 32, n_head: 2, n_layer: 2 };
  const of = async (seed: number, weights: "f32" | "f16" | "q8" | "q4" = "f32") => {
    using model = await GPT2.random(shape, { seed, weights, backend: "wasm", instructionSet: "strict" });
    return [await model.parameter("h.1.mlp.c_fc.weight"), ...await model.logits([[1, 2, 3]])];
  };
  const [weight, logits] = await of(5);
  assertEquals(await of(5), [weight, logits]);
  assert((await of(6))[0][0] !== weight[0]);
  const size = Math.max(...weight);
  for (const [format, tolerance] of [["f16", 1e-3], ["q8", 1e-2], ["q4", 0.15]] as const) {
    const [stored] = await of(5, format);
    assert(stored.every((x, i) => Math.abs(x - weight[i]) < tolerance * size), format);
  }
});

Deno.test("a load that fails halfway leaves nothing in a backend that is shared", async () => {
  using backend = await createWasmBackend();
  for (const n of [1, 7, 20]) {
    let left = n;
    const short: Backend = new Proxy(backend, {
      get(target, name) {
        const value = Reflect.get(target, name);
        if (typeof value !== "function") return value;
        return (...args: unknown[]) => {
          if ((name === "pack" || name === "upload") && left-- === 0) throw new RangeError("no memory");
          return value.apply(target, args);
        };
      },
    });
    await assertRejects(() => GPT2.load(fixture("d16/model"), { backend: short }), RangeError);
    left = n;
    await assertRejects(
      () => GPT2.random({ vocab_size: 9, n_embd: 8, n_head: 1 }, { backend: short }),
      RangeError,
    );
    assertEquals(backend.stats().allocatedBytes, 0);
  }
});

// Over HTTP

async function serving(
  answer: (path: string, request: Request) => Response | Promise<Response>,
  work: (url: string) => Promise<void>,
): Promise<void> {
  const server = Deno.serve(
    {
      port: 0,
      hostname: "127.0.0.1",
      onListen: () => {},
      onError: () => new Response(null, { status: 500 }),
    },
    (request) => answer(new URL(request.url).pathname, request),
  );
  try {
    await work(`http://127.0.0.1:${server.addr.port}/models/tiny`);
  } finally {
    await server.shutdown();
  }
}

async function file(directory: string, path: string): Promise<Response> {
  try {
    const bytes = await Deno.readFile(`${directory}/${path.replace("/models/tiny/", "")}`);
    return new Response(bytes, { headers: { "content-length": String(bytes.length) } });
  } catch {
    return new Response("not here", { status: 404 });
  }
}

Deno.test("a model is loaded from a web server, whole or in shards, and progress is told", async () => {
  for (const name of ["d16", "d20"]) {
    const directory = fixture(`${name}/model`);
    await serving((path) => file(directory, path), async (url) => {
      const seen = new Map<string, Progress>();
      const actual = await logitsOf(url, {
        onProgress(progress) {
          const before = seen.get(progress.file)?.loaded ?? 0;
          assert(progress.loaded > before && progress.loaded <= progress.total);
          seen.set(progress.file, progress);
        },
      });
      assertEquals(actual, await logitsOf(directory));
      const weights = [...seen.values()].filter(({ file }) => file.endsWith(".safetensors"));
      assertEquals(weights.length, name === "d20" ? 3 : 1);
      for (const { loaded, total } of weights) assertEquals(loaded, total);
    });
  }
});

Deno.test("an address without a model, and a server that refuses, say so without its query", async () => {
  await serving(() => new Response(null, { status: 404 }), async (url) => {
    const error = await failure("format", [url, "no config.json"], () => GPT2.load(`${url}/?token=secret`));
    assert(!error.message.includes("secret"));
  });
  await serving(() => new Response(null, { status: 403 }), async (url) => {
    await failure("network", [url, "403"], () => GPT2.load(url));
  });
  await serving(
    (path) =>
      path.endsWith("/config.json")
        ? new Response('{"model_type": "bert"}')
        : new Response(null, { status: 404 }),
    async (url) => {
      const error = await failure(
        "format",
        [`${url}/config.json`, "bert"],
        () => GPT2.load(`${url}?token=secret`),
      );
      assert(!error.message.includes("secret"));
    },
  );
});

Deno.test("aborting ends a download under way with the signal's reason, and nothing is left behind", async () => {
  const directory = fixture("d16/model");
  const controller = new AbortController();
  const stalling = async (path: string) => {
    if (!path.endsWith("model.safetensors")) return await file(directory, path);
    const bytes = await Deno.readFile(`${directory}/model.safetensors`);
    const body = new ReadableStream({
      start(stream) {
        stream.enqueue(bytes.subarray(0, 80_000)); // and never the rest
        setTimeout(() => controller.abort(new Error("enough")), 50);
      },
    });
    return new Response(body, { headers: { "content-length": String(bytes.length) } });
  };
  await serving(stalling, async (url) => {
    using backend = await createWasmBackend();
    const error = await assertRejects(() => GPT2.load(url, { backend, signal: controller.signal }), Error);
    assertEquals(error.message, "enough");
    assertEquals(backend.stats().allocatedBytes, 0);
  });
});

Deno.test("an aborted signal ends loading from a directory too", async () => {
  const error = await assertRejects(
    () => GPT2.load(fixture("d16/model"), { backend: "wasm", signal: AbortSignal.abort(new Error("no")) }),
    Error,
  );
  assertEquals(error.message, "no");
  // In the middle: after the first megabytes of weights, as it were.
  const controller = new AbortController();
  using backend = await createWasmBackend();
  await assertRejects(
    () =>
      GPT2.load(fixture("d20/model"), {
        backend,
        signal: controller.signal,
        onProgress: ({ file, loaded }) => {
          if (file.startsWith("model-00002") && loaded > 30_000) controller.abort(new Error("halfway"));
        },
      }),
    Error,
    "halfway",
  );
  assertEquals(backend.stats().allocatedBytes, 0);
});
