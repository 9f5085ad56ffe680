/** Models in 16, 8 and 4 bits on their way into files and out of them. */
import { assert, assertEquals } from "@std/assert";
import { createWasmBackend } from "../src/backend/wasm/backend.ts";
import { WhetError } from "../src/errors.ts";
import { GPT2 } from "../src/gpt2.ts";
import { Lora } from "../src/model/lora.ts";
import { isMatrix, parameterShapes, summedAxis } from "../src/model/transformer.ts";
import type { StoredMatrix } from "../src/tensor/tensor.ts";
import { train } from "../src/train/trainer.ts";
import { candidates } from "./support/backends.ts";
import { whet } from "./support/cli.ts";
import { failure, fixture, inTempDir, onEachBackend, shake } from "./support/models.ts";
import { FORMATS, logitsOf, ODD, readTensors, saveOdd, SEQUENCES, shard, WASM } from "./support/quantized.ts";
import { numbersOf } from "./support/stored.ts";

/** The matrices of a file, as its note and tensors say. */
async function readMatrices(directory: string): Promise<Map<string, StoredMatrix>> {
  const { tensors, metadata } = await readTensors(`${directory}/model.safetensors`);
  const note = JSON.parse(metadata.whet);
  const floats = (name: string) => {
    const bytes = tensors.get(name)?.bytes;
    return bytes && new Float32Array(bytes.buffer);
  };
  return new Map(
    Object.entries(note.matrices as Record<string, { shape: [number, number]; axis: 0 | 1 }>).map((
      [name, { shape: [rows, columns], axis }],
    ) => [name.replace("transformer.", ""), {
      ...{ rows, columns, axis, format: note.weights, codes: tensors.get(name)!.bytes },
      ...{ scales: floats(`${name}.scales`), minima: floats(`${name}.minima`) },
    }]),
  );
}

await onEachBackend(
  "a quantised model is saved and loaded again to the bit",
  (backend) =>
    inTempDir(async (directory) => {
      const [once, twice] = [`${directory}/once`, `${directory}/twice`];
      for (const weights of FORMATS) {
        // One is enough where kernels are compiled at first use, on a software driver slowly.
        for (const source of [ODD, ...(backend.name === "wasm" ? [fixture("d20/model")] : [])]) {
          using model = typeof source === "string"
            ? await GPT2.load(source, { backend, weights })
            : await GPT2.random(source, { backend, weights });
          const expected = await model.logits(SEQUENCES);
          await model.save(once);
          using again = await GPT2.load(once, { backend });
          assertEquals(again.weights, weights);
          for (const name of parameterShapes(model.config).keys()) {
            assertEquals(await again.parameter(name), await model.parameter(name), `${weights} ${name}`);
          }
          assertEquals(await again.logits(SEQUENCES), expected);
          await again.save(twice);
          const file = "model.safetensors";
          assertEquals(await Deno.readFile(`${twice}/${file}`), await Deno.readFile(`${once}/${file}`));
        }
      }
    }),
);

await onEachBackend(
  "a code of −128, which Whet never writes, is −128 steps, in the longest sums of the largest numbers too",
  async (backend) => {
    const [rows, columns] = [512, 48];
    for (const axis of [0, 1] as const) {
      const groups = axis === 0 ? rows / 32 * columns : rows * Math.ceil(columns / 32);
      const scales = new Float32Array(groups).fill(0.25);
      const stored: StoredMatrix = {
        ...{ rows, columns, axis, format: "q8", scales },
        codes: new Uint8Array(rows * columns).fill(128),
      };
      const b = backend.packStored(stored);
      assert((await backend.unpack(b)).every((x) => x === -32));
      for (const M of [1, 5, 33]) {
        for (const transposeB of [false, true]) {
          const [K, N] = transposeB ? [columns, rows] : [rows, columns];
          const a = backend.upload(new Float32Array(M * K).fill(3), [M, K]);
          const out = backend.allocate([M, N]);
          backend.matmul({ a, b, transposeB, out });
          for (const x of await backend.read(out)) {
            assert(Math.abs(x / (K * 3 * -32) - 1) < 1e-6, `axis ${axis}, ${M} rows: ${x}`);
          }
          backend.free(a), backend.free(out);
        }
      }
      backend.free(b);
    }
  },
);

await onEachBackend(
  "what is in the file are the numbers that are computed with",
  (backend) =>
    inTempDir(async (directory) => {
      for (const weights of FORMATS) {
        const { parameters } = await saveOdd(directory, weights, backend);
        const matrices = await readMatrices(directory);
        assertEquals([...matrices.keys()].sort(), [...parameters.keys()].filter(isMatrix).sort());
        for (const [name, stored] of matrices) {
          assertEquals(stored.axis, summedAxis(name), name);
          const expected = parameters.get(name)!;
          const largest = expected.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
          numbersOf(stored).forEach((x, i) => {
            if (Math.abs(x - expected[i]) > largest * 2 ** -22) {
              throw new Error(`${weights} ${name} at ${i}: ${x} in the file, ${expected[i]} in the model`);
            }
          });
        }
      }
    }),
);

Deno.test("the embedded model is saved and loaded in 8 and 4 bits", () =>
  inTempDir(async (directory) => {
    for (const weights of ["q8", "q4"] as const) {
      using model = await GPT2.load("nano", { ...WASM, weights });
      await model.save(directory);
      assertEquals(await logitsOf(directory), await model.logits(SEQUENCES));
      const { size } = await Deno.stat(`${directory}/model.safetensors`);
      const plain = await model.parameterCount * 4;
      assert(size < plain * { q8: 0.35, q4: 0.26 }[weights], `${size} bytes, ${plain} in f32`);
    }
  }));

Deno.test("tensors lie in the file as the scheme says, and other programs are told not to take codes for weights", () =>
  inTempDir(async (directory) => {
    const [C, V] = [ODD.n_embd!, ODD.vocab_size!];
    const layouts = {
      f16: { "": ["F16", C, 3 * C], wte: ["F16", V, C] },
      q8: {
        "": ["I8", C, 3 * C],
        ".scales": ["F32", 2, 3 * C],
        wte: ["I8", V, C],
        "wte.scales": ["F32", V, 2],
      },
      q4: {
        ...{
          "": ["U8", Math.ceil(C * 3 * C / 2)],
          ".scales": ["F32", 2, 3 * C],
          ".minima": ["F32", 2, 3 * C],
        },
        ...{ "wte": ["U8", Math.ceil(V * C / 2)], "wte.scales": ["F32", V, 2], "wte.minima": ["F32", V, 2] },
      },
    };
    for (const weights of FORMATS) {
      await saveOdd(directory, weights);
      const { tensors, metadata } = await readTensors(`${directory}/model.safetensors`);
      const of = (beginning: string, short: string) =>
        [...tensors].filter(([name]) => name.startsWith(beginning))
          .map(([name, { dtype, shape }]) => [name.replace(beginning, short), [dtype, ...shape]]);
      const entries = [
        ...of("transformer.h.0.attn.c_attn.weight", ""),
        ...of("transformer.wte.weight", "wte"),
      ];
      assertEquals(Object.fromEntries(entries), layouts[weights]);
      assertEquals(tensors.get("transformer.wpe.weight")!.dtype, "F32");
      assertEquals(metadata.format, weights === "f16" ? "pt" : "whet");
      const note = JSON.parse(metadata.whet);
      assertEquals([note.version, note.weights, note.matrices["transformer.wte.weight"]], [1, weights, {
        ...{ shape: [V, C], axis: 1 },
      }]);
      const config = JSON.parse(await Deno.readTextFile(`${directory}/config.json`));
      assertEquals(
        config.quantization_config,
        weights === "f16" ? undefined : { quantized_by: "whet", version: 1, weights, group_size: 32 },
      );
    }
  }));

Deno.test("a quantised model is loaded in another format where that is asked for", () =>
  inTempDir(async (directory) => {
    for (const from of FORMATS) {
      await saveOdd(directory, from);
      const matrices = await readMatrices(directory);
      for (const weights of ["f32", ...FORMATS] as const) {
        using model = await GPT2.load(directory, { ...WASM, weights });
        assertEquals(model.weights, weights);
        for (const [name, stored] of matrices) {
          const values = await model.parameter(name);
          const largest = values.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
          const step = weights === "f32" || weights === from
            ? 2 ** -22
            : { f16: 2 ** -11, q8: 1 / 200, q4: 0.15 }[weights];
          const off = numbersOf(stored).findIndex((x, i) => Math.abs(x - values[i]) > step * largest);
          assertEquals(off, -1, `${name}, ${from} as ${weights}`);
        }
      }
    }
  }));

Deno.test("what one backend saved another loads, to within a step, and WebAssembly's builds to the bit", () =>
  inTempDir(async (directory) => {
    const backends = (await candidates()).filter(({ ignore, name }) =>
      !ignore && !name.includes("3 threads")
    );
    for (const weights of ["q8", "q4"] as const) {
      for (const { create, name } of backends) {
        using backend = await create();
        const { parameters } = await saveOdd(`${directory}/${name}`, weights, backend);
        for (const other of backends) {
          using reader = await other.create();
          using model = await GPT2.load(`${directory}/${name}`, { backend: reader });
          for (const [parameter, expected] of parameters) {
            const values = await model.parameter(parameter);
            const largest = expected.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
            const wasm = [name, other.name].every((each) => each.startsWith("wasm"));
            const step = wasm || name === other.name ? 0 : { q8: 1 / 127, q4: 1 / 7 }[weights];
            const off = values.findIndex((x, i) => Math.abs(x - expected[i]) > step * largest);
            assertEquals(off, -1, `${weights} ${parameter} from ${name} to ${other.name}`);
          }
        }
      }
    }
  }));

Deno.test("loading lays out codes as they are: no matrix becomes f32, and nothing is left of a load that fails", () =>
  inTempDir(async (directory) => {
    await saveOdd(directory, "q8");
    using backend = await createWasmBackend({ threads: 1 });
    backend.pack = () => {
      throw new Error("a matrix was quantised anew");
    };
    const model = await GPT2.load(directory, { backend });
    const { packStored } = backend;
    model[Symbol.dispose]();
    let left = 3;
    backend.packStored = (stored) => {
      if (left-- === 0) throw new WhetError("resource", "no memory");
      return packStored.call(backend, stored);
    };
    await failure("resource", ["no memory"], () => GPT2.load(directory, { backend }));
    assertEquals(backend.stats().allocations, 0);
  }));

// Shards, web servers

Deno.test("shards may part codes from scales; one shard's note is enough, but there must be one", () =>
  inTempDir(async (directory) => {
    const ways: [string, (name: string) => boolean][] = [
      ["scales", (name) => name.endsWith(".scales")],
      ["wte", (name) => name.includes("wte")],
    ];
    for (const [way, isSecond] of ways) {
      for (const notes of [[true, true], [true, false], [false, true], [false, false]]) {
        const { logits } = await saveOdd(directory, "q4");
        await shard(directory, isSecond, notes);
        if (notes.includes(true)) assertEquals(await logitsOf(directory), logits, `${way} ${notes}`);
        else await failure("format", [directory, "quantised", "no note"], () => GPT2.load(directory, WASM));
      }
    }
  }));

Deno.test("a quantised model comes over the web in one pass, also from a server that knows no ranges", () =>
  inTempDir(async (directory) => {
    const { logits } = await saveOdd(directory, "q4");
    let requests = 0;
    await using server = Deno.serve(
      { port: 0, hostname: "127.0.0.1", onListen: () => {} },
      async (request) => {
        const { pathname } = new URL(request.url);
        requests += Number(pathname === "/model.safetensors");
        const bytes = await Deno.readFile(directory + pathname).catch(() => null);
        return new Response(bytes, {
          status: bytes ? 200 : 404,
          headers: { "content-length": `${bytes?.length ?? 0}` },
        });
      },
    );
    assertEquals(await logitsOf(`http://127.0.0.1:${server.addr.port}`), logits);
    assertEquals(requests, 1);
  }));

// Training

Deno.test("an adapter trains on a quantised model that was loaded as on one that was quantised at load, and merges", () =>
  inTempDir(async (directory) => {
    const source = fixture("d16/model"), examples = [{ tokens: [1, 2, 3, 4, 5, 6] }];
    const lossesOn = async (model: GPT2) => {
      using lora = Lora.create(model, { rank: 2, seed: 5 });
      const losses: number[] = [];
      for await (const { loss } of train(model, examples, { lora, steps: 3, learningRate: 1e-2 })) {
        losses.push(loss);
      }
      return losses;
    };
    using quantised = await GPT2.load(source, { ...WASM, weights: "q8" });
    await quantised.save(directory);
    using loaded = await GPT2.load(directory, WASM);
    assertEquals(await lossesOn(loaded), await lossesOn(quantised));
    await failure("option", ["f32", "q8"], () => train(loaded, examples, { steps: 1 }).next());
    using lora = Lora.create(loaded, { rank: 2, targets: "all-linear" });
    await shake(lora, loaded);
    await loaded.merge(lora);
    const merged = await loaded.logits(SEQUENCES);
    await loaded.save(directory);
    assertEquals(await logitsOf(directory), merged);
  }));

// The command

Deno.test("whet quantize writes a model that is used as it is stored, and makes plain weights of it again", () =>
  inTempDir(async (directory) => {
    const [out, plain] = [`${directory}/q8`, `${directory}/plain`];
    const model = fixture("d16/model");
    const run = async (...args: string[]) => {
      const { code, stdout, stderr } = await whet([...args, "--backend", "wasm", "--quiet"]);
      assertEquals([code, stderr], [0, ""]);
      return stdout;
    };
    const quantise = ["quantize", "--model", model, "--weights", "q8", "--out", out];
    const { size } = await run(...quantise, "--json").then(async (text) => {
      const info = await Deno.stat(`${out}/model.safetensors`);
      assertEquals(JSON.parse(text), { out, weights: "q8", bytes: info.size });
      return info;
    });
    const prompt = ["--prompt", "Hello", "--max-tokens", "12", "--temperature", "0"];
    const [stored, converted] = await Promise.all([
      run("generate", "--model", out, ...prompt),
      run("generate", "--model", model, "--weights", "q8", ...prompt),
      run("quantize", "--model", out, "--weights", "f32", "--out", plain),
    ]);
    assertEquals(stored, converted);
    using again = await GPT2.load(plain, WASM);
    assertEquals(again.weights, "f32");
    assert((await Deno.stat(`${plain}/model.safetensors`)).size > 2 * size);
    const wrong = await whet(["quantize", "--model", model, "--out", out]);
    assertEquals([wrong.code, wrong.stdout], [2, ""]);
    assert(wrong.stderr.startsWith("whet: --weights is missing"), wrong.stderr);
  }));

// Python

const python = Deno.env.get("WHET_PYTHON");

Deno.test({
  name: "transformers loads what was stored in f16, and refuses q8 and q4 (WHET_PYTHON)",
  ignore: !python,
  fn: () =>
    inTempDir(async (directory) => {
      const script =
        "import sys; from transformers import AutoModelForCausalLM as M; M.from_pretrained(sys.argv[1])";
      for (const weights of FORMATS) {
        await saveOdd(directory, weights);
        const { success, stderr } = await new Deno.Command(python!, {
          args: ["-c", script, directory],
          env: { HF_HUB_OFFLINE: "1" },
        }).output();
        assertEquals(success, weights === "f16", new TextDecoder().decode(stderr));
      }
    }),
});
