/**
 * jax-js on WebAssembly: the matrix product, with B as it is or, as it likes it better, transposed ahead.
 *
 * @module
 */
import { MATMUL } from "../harness/inputs.ts";
import { serve } from "../harness/serve.ts";
import { matmulSession, operands } from "./matmul.ts";
import { nameOf, specifier } from "./packages.ts";

await serve(async ({ threads, transposed }) => {
  // It has as many workers as there are cores, and no setting.
  Object.defineProperty(navigator, "hardwareConcurrency", { value: threads });
  const jax = await import(specifier("@jax-js/jax"));
  await jax.init("wasm");
  jax.defaultDevice("wasm");
  const { M, K, N } = MATMUL;
  const { a, b } = operands();
  const left = jax.numpy.array(a).reshape([M, K]);
  const right = transposed
    ? jax.numpy.array(Float32Array.from(b, (_, i) => b[(i % K) * N + Math.floor(i / K)])).reshape([N, K])
    : jax.numpy.array(b).reshape([K, N]);
  await jax.blockUntilReady([left.ref, right.ref]);
  const product = jax.jit((x: unknown, y: unknown) =>
    jax.numpy.matmul(x, transposed ? jax.numpy.transpose(y) : y)
  );
  // A call consumes its arguments, of which `ref` makes one more.
  const multiply = () => product(left.ref, right.ref);
  return matmulSession(nameOf("@jax-js/jax"), async (times) => {
    for (let i = 0; i < times; i++) {
      const out = multiply();
      await out.blockUntilReady();
      out.dispose();
    }
  }, () => multiply().data());
});
