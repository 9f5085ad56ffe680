/**
 * An edge function that streams a generation: `deno serve --host 127.0.0.1 examples/edge.ts`, then
 * `curl -N "http://127.0.0.1:8000/?prompt=Tell+me+a+story+about+a+dog."`. A visitor who goes away ends it.
 */
import { GPT2 } from "../mod.ts";

const model = await GPT2.load("nano", { backend: "wasm" });

export default {
  fetch({ method, url }: Request): Response {
    if (method !== "GET") return new Response("GET only\n", { status: 405, headers: { allow: "GET" } });
    const question = new URL(url).searchParams.get("prompt") ?? "Tell me a story about a cat.";
    const prompt = model.tokenizer.encode(`\n\nHuman: ${question}\n\nAssistant:`);
    const maxTokens = Math.min(100, model.config.n_positions - prompt.length);
    if (maxTokens < 1) return new Response("the prompt is too long\n", { status: 413 });
    const chunks = model.generate(prompt, { maxTokens, stop: "\n\nHuman:" });
    const text = ReadableStream.from(chunks).pipeThrough(
      new TransformStream({ transform: ({ text }, stream) => stream.enqueue(text) }),
    ).pipeThrough(new TextEncoderStream());
    return new Response(text, { headers: { "content-type": "text/plain; charset=utf-8" } });
  },
} satisfies Deno.ServeDefaultExport;
