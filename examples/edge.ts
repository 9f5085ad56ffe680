/**
 * The whole of an edge function that speaks OpenAI's API: `deno serve --host 127.0.0.1 examples/edge.ts`, then
 * `curl -N http://127.0.0.1:8000/v1/completions --json '{"prompt":"The cat","stream":true}'`. It serves Whet's own small
 * model, or the one that WHET_MODEL names: a directory or an https address of one that `whet quantize` made. The
 * limits are for a machine of 512 MB.
 */
import { createHandler } from "../mod.ts";

const { state } = await Deno.permissions.query({ name: "env", variable: "WHET_MODEL" });

export default {
  fetch: createHandler({
    model: (state === "granted" && Deno.env.get("WHET_MODEL")) || "nano",
    backend: "wasm",
    threads: 1,
    slots: 4,
    queue: 16,
    cacheBytes: 48 * 2 ** 20,
    adapterBytes: 16 * 2 ** 20,
  }),
} satisfies Deno.ServeDefaultExport;
