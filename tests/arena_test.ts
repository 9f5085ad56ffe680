import { assert, assertEquals, assertRejects } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import { Arena } from "../src/tensor/arena.ts";
import type { Backend } from "../src/tensor/backend.ts";
import { Ops } from "../src/tensor/ops.ts";
import { ParameterLayout } from "../src/tensor/parameters.ts";
import { Tape } from "../src/tensor/tape.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import { failing, onEachBackend } from "./support/models.ts";
import { ReferenceBackend } from "./support/reference.ts";

/** A backend some of whose methods are replaced; the others are the given one's. */
function instead(backend: Backend, replaced: Partial<Backend>): Backend {
  return new Proxy(backend, {
    get(target, name) {
      const value = Reflect.get(replaced, name) ?? Reflect.get(target, name);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

/** A backend that fails at its n-th launch of a kernel, or allocation. */
function failingAfter(backend: Backend, n: number, what: "allocate" | "kernel"): Backend {
  const memory = ["upload", "write", "read", "pack", "unpack", "free", "flush", "stats", "fill"];
  return new Proxy(backend, {
    get(target, name) {
      const value = Reflect.get(target, name);
      if (typeof value !== "function") return value;
      const counts = what === "allocate"
        ? name === "allocate"
        : name !== "allocate" && !memory.includes(String(name));
      return (...args: unknown[]) => {
        if (counts && n-- === 0) throw new WhetError("resource", `the ${String(name)} that was to fail`);
        return value.apply(target, args);
      };
    },
  });
}

/** Two layers with adapters, attention, a loss: forward and back. Gives the gradients' tensors back. */
function step(arena: Arena, parameters: Record<string, Tensor>, gradients: Record<string, Tensor>): void {
  arena.scope(() => {
    const tape = new Tape(arena);
    for (const name of Object.keys(gradients)) tape.bind(parameters[name], gradients[name]);
    let key = 0;
    const ops = new Ops(arena, tape, () => [3, key++]);
    const u32 = (...numbers: number[]) => arena.upload(Uint32Array.from(numbers));
    const { wte, wpe, W, U, A, B, weight, bias } = parameters;
    const x = ops.embedding(wte, wpe, u32(0, 2, 1), u32(0, 1, 0));
    const y = ops.scope(() => {
      const normed = ops.layerNorm(x, { weight, bias }, 1e-5);
      const qkv = ops.linear(normed, { weight: W, lora: { A, B, scaling: 2, dropout: 0.5 } });
      const attended = ops.attention(qkv, { starts: u32(0, 0, 2), ends: u32(2, 2, 3) }, 2, 0.5);
      return ops.linear(ops.gelu(attended), { weight: U }, x);
    });
    const loss = ops.crossEntropy(ops.gather(y, u32(0, 2)), wte, u32(1, 2), 0.5);
    tape.backward(loss);
  });
}

const SHAPES = {
  wte: [5, 4],
  wpe: [3, 4],
  W: [4, 12],
  U: [4, 4],
  A: [2, 4],
  B: [12, 2],
  weight: [4],
  bias: [4],
};

function parametersOf(backend: Backend, trained: readonly string[]) {
  const parameters: Record<string, Tensor> = {};
  const gradients: Record<string, Tensor> = {};
  for (const [name, shape] of Object.entries(SHAPES)) {
    const length = shape.reduce((a, b) => a * b, 1);
    parameters[name] = backend.upload(Float32Array.from({ length }, (_, i) => Math.sin(i + length)), shape);
    if (!trained.includes(name)) continue;
    parameters[name].requiresGradient = true;
    gradients[name] = backend.upload(new Float32Array(length), shape);
  }
  return { parameters, gradients };
}

Deno.test("a scope frees what was made in it, but for its result, which passes to the scope around it", () => {
  using backend = new ReferenceBackend();
  const arena = new Arena(backend);
  arena.scope(() => {
    const [a, b] = arena.scope(() => {
      const a = arena.temporary([2]), b = arena.upload(Float32Array.of(1));
      arena.temporary([3]);
      arena.scope(() => arena.temporary([4]));
      return [a, b];
    });
    assertEquals(arena.size, 2);
    arena.discard(a);
    assertEquals(arena.size, 1);
    arena.discard(a);
    arena.retain(b);
    assert(arena.isShared(b));
    arena.release(b);
    assertEquals([arena.isShared(b), arena.size], [false, 1]);
    arena.retain(b); // outlives its scopes
  });
  assertEquals([arena.size, backend.stats().allocations], [1, 1]);
  arena[Symbol.dispose]();
  arena[Symbol.dispose]();
  assertEquals([arena.size, backend.stats().allocatedBytes], [0, 0]);
});

Deno.test("a parameter, a view and what is freed already are not the arena's to hold", () => {
  using backend = new ReferenceBackend();
  const arena = new Arena(backend);
  const parameter = backend.upload(new Float32Array(128));
  arena.retain(parameter);
  arena.retain(parameter.slice(64, [64]));
  arena.release(parameter);
  arena.discard(parameter);
  assertEquals([arena.isShared(parameter), backend.stats().allocations], [false, 1]);
});

await onEachBackend(
  "a read that is begun in a scope gives what was there, though the memory is used again at once",
  async (backend) => {
    const arena = new Arena(backend);
    const reads = [1, 2, 3].map((value) =>
      arena.scope(() => {
        const x = arena.temporary([1000]);
        backend.fill({ out: x, value });
        return backend.read(x);
      })
    );
    assertEquals(arena.size, 0);
    for (const value of [4, 5, 6]) arena.scope(() => backend.fill({ out: arena.temporary([1000]), value }));
    const contents = await Promise.all(reads);
    assertEquals(contents.map((content) => [content[0], content[999]]), [[1, 1], [2, 2], [3, 3]]);
    assertEquals(backend.stats().allocatedBytes, 0);
  },
);

Deno.test("whichever kernel or allocation of a step fails, nothing is left behind and the next step works", () => {
  for (const trained of [Object.keys(SHAPES), ["A", "B"]]) {
    for (const what of ["kernel", "allocate"] as const) {
      let failures = 0;
      for (let n = 0;; n++) {
        using backend = new ReferenceBackend();
        const { parameters, gradients } = parametersOf(backend, trained);
        const before = backend.stats().allocatedBytes;
        const arena = new Arena(failingAfter(backend, n, what));
        let failed = true;
        try {
          step(arena, parameters, gradients);
          failed = false;
        } catch (error) {
          assert(error instanceof WhetError && error.message.includes("was to fail"), String(error));
        }
        assertEquals([arena.size, backend.stats().allocatedBytes], [0, before], `failure ${n} of ${what}`);
        if (!failed) break;
        failures++;
        step(arena, parameters, gradients);
        assertEquals(
          [arena.size, backend.stats().allocatedBytes],
          [0, before],
          `the step after failure ${n}`,
        );
      }
      assert(failures >= 20, `only ${failures} places to fail at`);
    }
  }
});

Deno.test("a failure frees what its scope made and nothing older", () => {
  using backend = new ReferenceBackend();
  const arena = new Arena(backend);
  const cache = arena.temporary([7]); // as a generation's, between its steps
  arena.scope(() => {
    const kept = arena.temporary([1]);
    failing("backend", ["halfway"], () =>
      arena.scope(() => {
        arena.retain(arena.temporary([2]));
        arena.scope(() => arena.temporary([3]));
        throw new WhetError("backend", "halfway");
      }));
    assertEquals(arena.size, 2);
    backend.fill({ out: kept, value: 1 });
  });
  assertEquals(arena.size, 1);
  backend.fill({ out: cache, value: 1 });
});

Deno.test("two contributions to a gradient are added in place; one that is shared is copied first, once", () => {
  using reference = new ReferenceBackend();
  let copies = 0;
  const backend = instead(reference, {
    copy: (args) => {
      copies++;
      reference.copy(args);
    },
  });
  const arena = new Arena(backend);
  const { parameters } = parametersOf(reference, ["wte"]);
  const run = (residual: boolean) => {
    copies = 0;
    arena.scope(() => {
      const tape = new Tape(arena);
      const ops = new Ops(arena, tape);
      const x = ops.gather(parameters.wte, arena.upload(Uint32Array.of(0, 1)));
      const { W, A, B } = parameters;
      const { U } = parameters;
      const y = residual
        ? ops.linear(x, { weight: U }, x)
        : ops.linear(x, { weight: W, lora: { A, B, scaling: 1, dropout: 0 } });
      const seed = arena.temporary(y.shape);
      backend.fill({ out: seed, value: 1 });
      tape.backward(y, seed);
      arena.release(tape.gradient(parameters.wte)!);
    });
    assertEquals(arena.size, 0);
    return copies;
  };
  assertEquals(run(false), 0, "base and adapter both give x a gradient");
  assertEquals(run(true), 1, "the residual's gradient is the output's own, which must stay as it is");
});

Deno.test("running back where nothing is to be differentiated leaves nothing behind", () => {
  using backend = new ReferenceBackend();
  const arena = new Arena(backend);
  const { parameters } = parametersOf(backend, []);
  step(arena, parameters, {});
  assertEquals(arena.size, 0);
});

Deno.test("parameters lie side by side at multiples of 64, each slab zeroed, none where memory is short", async () => {
  using backend = new ReferenceBackend();
  const layout = new ParameterLayout([
    { name: "a", shape: [3, 5], decays: true },
    { name: "b", shape: [7], decays: false },
    { name: "c", shape: [64], decays: true },
    { name: "d", shape: [1, 65], decays: true },
  ]);
  assertEquals(layout.slabs.map(({ length, decays }) => [length, decays]), [[64 + 64 + 128, true], [
    64,
    false,
  ]]);
  assertEquals(layout.count, 15 + 7 + 64 + 65);
  {
    using values = layout.allocate(backend);
    values.write("c", new Float32Array(64).fill(2));
    assertEquals([...await values.read("d")], Array(65).fill(0));
    assertEquals([...await values.read("a")], Array(15).fill(0));
    assertEquals((await values.read("c")).every((x) => x === 2), true);
    assertEquals(values.tensors.get("d")!.offset, 128);
  }
  assertEquals(backend.stats().allocations, 0);
  failing("resource", ["was to fail"], () => layout.allocate(failingAfter(backend, 1, "allocate")));
  assertEquals(backend.stats().allocations, 0);
});

Deno.test("tensors larger than a slab get one of their own", () => {
  const layout = new ParameterLayout([
    { name: "small", shape: [10], decays: true },
    { name: "wte", shape: [50257, 768], decays: true },
    { name: "after", shape: [10], decays: true },
  ]);
  assertEquals(layout.slabs.map(({ length }) => length), [64, 50257 * 768, 64]);
});

await onEachBackend(
  "freeing is harmless after the backend's end; all else says that it is disposed",
  async (backend) => {
    const x = backend.upload(new Float32Array(3));
    const packed = backend.pack(new Float32Array(6), 2, 3, "q8");
    const arena = new Arena(backend);
    arena.temporary([5]);
    backend[Symbol.dispose]();
    backend.free(x);
    backend.free(packed);
    arena[Symbol.dispose]();
    assertEquals(backend.stats().allocatedBytes, 0);
    failing("disposed", [], () => backend.allocate([1]));
    failing("disposed", [], () => backend.flush());
    await assertRejects(async () => await backend.read(x), WhetError);
  },
);
