/**
 * TensorFlow.js on WebAssembly: the matrix product, on one thread.
 *
 * @module
 */
import { MATMUL } from "../harness/inputs.ts";
import { serve } from "../harness/serve.ts";
import { matmulSession, operands } from "./matmul.ts";
import { nameOf, specifier } from "./packages.ts";

await serve(async () => {
  const tf = await import(specifier("@tensorflow/tfjs-core"));
  const { setWasmPaths } = await import(specifier("@tensorflow/tfjs-backend-wasm"));
  const folder = import.meta.resolve(specifier("@tensorflow/tfjs-backend-wasm", "/wasm-out/"));
  setWasmPaths(new URL(folder).pathname.replace(/\/?$/, "/"));
  await tf.setBackend("wasm");
  await tf.ready();
  const { M, K, N } = MATMUL;
  const { a, b } = operands();
  const [left, right] = [tf.tensor2d(a, [M, K]), tf.tensor2d(b, [K, N])];
  const version = `${nameOf("@tensorflow/tfjs-backend-wasm")}`;
  // WebAssembly computes at once: nothing is to be waited for.
  return matmulSession(version, (times) => {
    for (let i = 0; i < times; i++) tf.matMul(left, right).dispose();
    return Promise.resolve();
  }, () => tf.matMul(left, right).data());
});
