/**
 * A running `whet serve`, in a process of its own, and how it is asked.
 *
 * @module
 */

/** What is asked: a completion, streamed. */
export interface Question {
  /** The base's name or an adapter's. */
  model?: string;
  /** Also makes the prompt, so that no two are the same. */
  seed: number;
  /** Tokens at most. */
  max_tokens: number;
}

/** An answer. */
export interface Answer {
  /** Its text. */
  text: string;
  /** Its tokens. */
  tokens: number;
}

/** The body of a request. */
export function bodyOf(question: Question): string {
  const prompt = `\n\nHuman: Tell me story ${question.seed}.\n\nAssistant:`;
  return JSON.stringify({ prompt, stream: true, ...question });
}

/** Asks; the status tells whether there will be an answer. */
export function post(url: string, question: Question): Promise<Response> {
  const headers = { "content-type": "application/json" };
  return fetch(`${url}/v1/completions`, { method: "POST", headers, body: bodyOf(question) });
}

/** Reads an answer to its end. */
export async function read(response: Response): Promise<Answer> {
  const events = await response.text();
  if (response.status !== 200) throw new Error(events);
  if (!events.endsWith("data: [DONE]\n\n")) throw new Error(`an answer is not whole: ${events.slice(-200)}`);
  const chunks = [...events.matchAll(/^data: (\{.*)$/gm)].map(([, json]) => JSON.parse(json));
  return { text: chunks.map(({ choices }) => choices[0].text).join(""), tokens: chunks.length };
}

/** A server with a model. */
export class Site implements AsyncDisposable {
  private constructor(readonly child: Deno.ChildProcess, readonly url: string) {}

  /**
   * Starts one.
   *
   * @param model The model's directory.
   * @param flags Flags of `whet serve`.
   */
  static async start(model: string, ...flags: string[]): Promise<Site> {
    const main = new URL("../../mod.ts", import.meta.url).href;
    const own = ["--model", model, "--name", "base", "--backend", "wasm", "--port", "0", "--json", "--quiet"];
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-check", "-A", main, "serve", ...own, ...flags],
      ...{ stdin: "null", stdout: "piped", stderr: "inherit" },
    }).spawn();
    const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    let line = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      line += part.value;
      if (line.includes("\n")) return new Site(child, JSON.parse(line).url);
    }
    throw new Error("whet serve did not start");
  }

  /** Asks, and waits for the whole answer. */
  async ask(question: Question): Promise<Answer> {
    return await read(await post(this.url, question));
  }

  /** A figure of its /metrics. */
  async metric(name: string): Promise<number> {
    const text = await (await fetch(`${this.url}/metrics`)).text();
    return Number(new RegExp(`^${name} (.*)$`, "m").exec(text)![1]);
  }

  /** MiB of memory that it holds now. */
  async resident(): Promise<number> {
    return await statusOf(this.child.pid, "VmRSS");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill("SIGKILL");
    await this.child.status;
  }
}

/** A line of a process's status, in MiB; NaN where there is no /proc. */
export async function statusOf(pid: number, name: "VmRSS" | "VmHWM"): Promise<number> {
  const status = await Deno.readTextFile(`/proc/${pid}/status`).catch(() => "");
  return Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1] ?? NaN) / 1024;
}

/** Waits. */
export function pause(ms: number): Promise<void> {
  return new Promise((go) => setTimeout(go, ms));
}
