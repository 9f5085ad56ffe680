/**
 * An edge function that streams a generation: `deno serve --host 127.0.0.1 examples/edge.ts`, then
 * `curl -N "http://127.0.0.1:8000/?prompt=Hello"`.
 */
import { GPT2 } from "../mod.ts";

const model = await GPT2.load("nano", { backend: "wasm" });

export default {
  fetch(request: Request): Response {
    const question = new URL(request.url).searchParams.get("prompt") ?? "Tell me a story about a cat.";
    const prompt = `\n\nHuman: ${question.slice(0, 200)}\n\nAssistant:`;
    const chunks = model.generate(prompt, { maxTokens: 100, stop: "\n\nHuman:", signal: request.signal });
    const text = ReadableStream.from(chunks).pipeThrough(
      new TransformStream({ transform: ({ text }, stream) => stream.enqueue(text) }),
    ).pipeThrough(new TextEncoderStream());
    return new Response(text, { headers: { "content-type": "text/plain; charset=utf-8" } });
  },
} satisfies Deno.ServeDefaultExport;
