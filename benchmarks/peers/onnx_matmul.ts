/**
 * onnxruntime's matrix product, in a graph of one node: B is a constant, which it packs at load.
 *
 * @module
 */
import { MATMUL } from "../harness/inputs.ts";
import type { Job, Session } from "../harness/serve.ts";
import { Graph } from "../models/onnx.ts";
import { matmulSession, operands } from "./matmul.ts";

/**
 * A session of onnxruntime-web or -node, which have the same interface.
 *
 * @param ort The package.
 * @param job Threads.
 * @param version Its name and version.
 */
// deno-lint-ignore no-explicit-any -- the packages' types are not loaded: see packages.ts
export async function onnxMatmul(ort: any, { threads }: Job, version: string): Promise<Session> {
  const { M, K, N } = MATMUL;
  const { a, b } = operands();
  const graph = new Graph(
    [{ name: "a", type: "float", shape: [M, K] }],
    [{ name: "out", type: "float", shape: [M, N] }],
  );
  graph.add("MatMul", ["a", graph.constant(b, [K, N])], {}, ["out"]);
  const file = new Uint8Array(await new Blob(graph.file(17) as Uint8Array<ArrayBuffer>[]).arrayBuffer());
  const session = await ort.InferenceSession.create(file, {
    executionProviders: [version.startsWith("onnxruntime-web") ? "wasm" : "cpu"],
    intraOpNumThreads: threads,
  });
  const feeds = { a: new ort.Tensor("float32", a, [M, K]) };
  const fetches = { out: new ort.Tensor("float32", new Float32Array(M * N), [M, N]) };
  return matmulSession(version, async (times) => {
    for (let i = 0; i < times; i++) await session.run(feeds, fetches);
  }, async () => (await session.run(feeds)).out.data);
}
