/**
 * onnxruntime-node, native code: the matrix product.
 *
 * @module
 */
import { serve } from "../harness/serve.ts";
import { onnxMatmul } from "./onnx_matmul.ts";
import { nameOf, specifier } from "./packages.ts";

await serve(async (job) => {
  const { default: ort } = await import(specifier("onnxruntime-node"));
  return await onnxMatmul(ort, job, nameOf("onnxruntime-node"));
});
