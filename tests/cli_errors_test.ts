/**
 * Bad input to the commands: exit status 1, one clear line, nothing half-written, no waiting.
 */
import { assertEquals } from "@std/assert";
import { fixture, inTempDir, MODEL, refused, type RunOptions, whet, writeExchanges } from "./support/cli.ts";

const quiet = ["--backend", "wasm", "--quiet"];

/** Runs the commands a few at a time; each must be refused with its message. */
async function allRefused(cases: [string[], RegExp, RunOptions?][]): Promise<void> {
  const waiting = [...cases];
  const work = async () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      const [args, message, options] = next;
      await refused([...args, ...quiet], { code: 1, message, ...options });
    }
  };
  await Promise.all([work(), work()]);
}

Deno.test("bad data is told by file and line", () =>
  inTempDir(async (directory) => {
    const good = '{"prompt":"a","response":"b"}\n';
    const write = async (name: string, content: string | Uint8Array) => {
      const path = `${directory}/${name}`;
      await Deno.writeFile(path, typeof content === "string" ? new TextEncoder().encode(content) : content);
      return path;
    };
    const stream = new Blob([good.repeat(99)]).stream().pipeThrough(new CompressionStream("gzip"));
    const gzip = new Uint8Array(await new Response(stream).arrayBuffer());
    const cases: [string, RegExp][] = [
      [`${directory}/nowhere.jsonl`, /^whet: \S+nowhere\.jsonl: there is no such file; check the path\n$/],
      [directory, /^whet: \S+: a directory; give the file in it that holds the data\n$/],
      [
        await write("cut.jsonl.gz", gzip.subarray(0, 40)),
        /cut\.jsonl\.gz: broken gzip: the file is cut short/,
      ],
      [await write("broken.jsonl", good + good + '{"prompt":'), /broken\.jsonl, line 3: broken JSON near /],
      [
        await write("shape.jsonl", good + '{"question":"a"}'),
        /shape\.jsonl, line 2: expected an object with/,
      ],
      [
        await write("field.jsonl", '{"prompt":"a","response":7}'),
        /line 1, field "response": expected a text, got a/,
      ],
      [await write("empty.jsonl", ""), /empty\.jsonl: the file is empty; expected one example a line/],
      [await write("blank.jsonl", "\n \n"), /blank\.jsonl: the file is empty/],
      [await write("latin1.jsonl", Uint8Array.of(0x7b, 0xe9, 0x7d)), /latin1\.jsonl, line 1: not UTF-8 text/],
      [await write("x.parquet", "PAR1xxxx"), /x\.parquet: this is a Parquet file; export it as JSON lines/],
      [await write("short.jsonl", '{"tokens":[1]}'), /nothing to learn in 1 examples/],
      [
        await write("beyond.jsonl", '{"tokens":[1,263]}'),
        /token 263 at index 1 is beyond the vocabulary of 263/,
      ],
    ];
    const out = `${directory}/out`;
    await allRefused([
      ...cases.map(([data, message]): [string[], RegExp] => [
        ["train", "--model", MODEL, "--data", data, "--out", out, "--seq-len", "40"],
        message,
      ]),
      [["score", "--model", MODEL, "--data", `${directory}/broken.jsonl`], /line 3: broken JSON/],
      [
        [
          "score",
          "--model",
          MODEL,
          "--data",
          await write("text.jsonl", '{"text":"a"}'),
          "--loss-on",
          "responses",
        ],
        /text\.jsonl, line 1: nothing to learn with the loss on responses/,
      ],
    ]);
    assertEquals([...Deno.readDirSync(directory)].filter(({ name }) => name.startsWith(".")), []);
  }));

Deno.test("a model, an adapter or a flag that does not fit is told, and the old output stays", () =>
  inTempDir(async (directory) => {
    const data = await writeExchanges(`${directory}/data.jsonl`), out = `${directory}/out`;
    const adapter = fixture("d16/lora/attn");
    assertEquals(
      (await whet([
        ...[
          "train",
          "--model",
          MODEL,
          "--data",
          data,
          "--out",
          out,
          "--steps",
          "1",
          "--seq-len",
          "40",
          ...quiet,
        ],
      ])).code,
      0,
    );
    const before = [...Deno.readDirSync(out)].map(({ name }) => name).sort();
    const train = ["train", "--model", MODEL, "--data", data, "--out", out];
    const generate = ["generate", "--prompt", "abc", "--max-tokens", "2"];
    await allRefused([
      [[...train, "--seq-len", "41"], /sequenceLength \(--seq-len\): 41 is beyond .*'s window of 40/],
      [[...train, "--targets", "q_proj"], /targets: "q_proj" matches no layer; there are attn\.c_attn, /],
      [[...train, "--targets", "attn"], /targets: "attn" matches no layer/],
      [["score", "--model", MODEL, "--data", data, "--seq-len", "41"], /\(--seq-len\): 41 is beyond/],
      [[...generate, "--model", `${directory}/no/such/place`], /no\/such\/place: there is no such directory/],
      [[...generate, "--model", adapter], /no config\.json there; it is an adapter: give it with --adapter/],
      [
        [...generate, "--model", data],
        /data\.jsonl: a file; give the directory that holds the model's files/,
      ],
      [[...generate, "--model", MODEL, "--adapter", fixture("d64/lora/one")], /is for another model: /],
      [[...generate, "--model", MODEL, "--adapter", MODEL], /adapter_config\.json/],
      [
        ["merge", "--model", MODEL, "--adapter", fixture("d64/lora/one"), "--out", out],
        /is for another model: /,
      ],
      [
        ["generate", "--model", MODEL, "--prompt", "x".repeat(41)],
        /prompt: 41 tokens are more than .* of 40/,
      ],
      [
        ["generate", "--model", MODEL, "--prompt", "x", "--max-tokens", "40"],
        /lower maxTokens \(--max-tokens\)/,
      ],
    ]);
    assertEquals([...Deno.readDirSync(out)].map(({ name }) => name).sort(), before);
  }));

Deno.test("an output that cannot be written is told before or after, never half", () =>
  inTempDir(async (directory) => {
    const data = await writeExchanges(`${directory}/data.jsonl`);
    const train = (out: string, ...flags: string[]) => [
      ...[
        "train",
        "--model",
        MODEL,
        "--data",
        data,
        "--out",
        out,
        "--steps",
        "2",
        "--seq-len",
        "40",
        ...flags,
      ],
    ];
    await Deno.mkdir(`${directory}/taken/metrics.jsonl`, { recursive: true });
    await Deno.mkdir(`${directory}/locked/checkpoint/checkpoint.safetensors/below`, { recursive: true });
    await allRefused([
      [train(data), /^whet: cannot write \S+data\.jsonl: a file stands where a directory should be; /],
      [train(`${data}/below`), /^whet: cannot write \S+below: a file stands where a directory should be; /],
      [
        train(`${directory}/taken`),
        /^whet: cannot write \S+metrics\.jsonl: a directory stands where the file/,
      ],
      [train(`${directory}/locked`), /checkpoint\.safetensors/],
      [
        ["merge", "--model", MODEL, "--adapter", fixture("d16/lora/attn"), "--out", data],
        /^whet: cannot write \S+data\.jsonl: a file stands where/,
      ],
    ]);
  }));

Deno.test({
  name: "a disk that is full ends training with one line and no part of a file",
  ignore: Deno.build.os !== "linux",
  fn: () =>
    inTempDir(async (directory) => {
      const data = await writeExchanges(`${directory}/data.jsonl`), out = `${directory}/out`;
      // No file may be longer than 40 KiB, the model's weights are.
      const script = 'trap "" XFSZ; ulimit -f 40; exec "$@"';
      const program = new URL("../mod.ts", import.meta.url).pathname;
      const { code, stderr } = await new Deno.Command("bash", {
        args: ["-c", script, "bash", Deno.execPath(), "run", "--no-prompt", "-A", program].concat(
          ["train", "--model", MODEL, "--data", data, "--out", out, "--steps", "2", "--seq-len", "40"],
          ["--method", "full", ...quiet],
        ),
        ...{ stdout: "piped", stderr: "piped" },
      }).output();
      const lines = new TextDecoder().decode(stderr).trim().split("\n");
      assertEquals([code, lines.length], [1, 1], lines.join("\n"));
      assertEquals(
        /^whet: step 2: cannot write \S+checkpoint\.safetensors: .+; no checkpoint was written yet/.test(
          lines[0],
        ),
        true,
        lines[0],
      );
      assertEquals([...Deno.readDirSync(out)].map(({ name }) => name).sort(), [
        "checkpoint",
        "metrics.jsonl",
      ]);
      assertEquals([...Deno.readDirSync(`${out}/checkpoint`)], []);
    }),
});

Deno.test("a missing permission is one line that names the flag, and nobody is asked", () =>
  inTempDir(async (directory) => {
    const data = await writeExchanges(`${directory}/data.jsonl`), out = `${directory}/out`;
    const train = [
      "train",
      "--model",
      MODEL,
      "--data",
      data,
      "--out",
      out,
      "--steps",
      "2",
      "--seq-len",
      "40",
    ];
    const read = [`--allow-read=${MODEL},${directory}`], write = `--allow-write=${directory}`;
    await allRefused([
      [train, /^whet: cannot read \S+data\.jsonl: .*; add --allow-read=\S+data\.jsonl\n$/, {
        permissions: [],
      }],
      [train, /^whet: cannot write \S+out: .*; add --allow-write=\S+out\n$/, { permissions: read }],
      [
        ["generate", "--model", MODEL, "--prompt", "x"],
        /^whet: cannot read \S+: .*; add --allow-read=/,
        { permissions: [] },
      ],
      [
        ["generate", "--model", "owner/name", "--prompt", "x"],
        /^whet: .*--allow-/,
        { permissions: ["--allow-read"], env: { HF_HOME: directory } },
      ],
    ]);
    // With what its help names it works.
    const { code, stderr } = await whet([...train, ...quiet], { permissions: [...read, write] });
    assertEquals([code, stderr], [0, ""]);
  }));

Deno.test("a Hub that cannot be reached is told at once, for models and for data", () =>
  inTempDir(async (directory) => {
    // A port that was just free: nothing listens there.
    const listener = Deno.listen({ port: 0, hostname: "127.0.0.1" });
    const { port } = listener.addr as Deno.NetAddr;
    listener.close();
    const env = { HF_ENDPOINT: `http://127.0.0.1:${port}`, HF_HOME: directory };
    const began = performance.now();
    await allRefused([
      [
        ["generate", "--model", "owner/name", "--prompt", "x"],
        new RegExp(
          `^whet: owner/name: there is no such directory here, and as a Hub id: 127\\.0\\.0\\.1:${port}`,
        ),
        { env },
      ],
      [
        ["score", "--model", MODEL, "--data", "owner/name"],
        /^whet: owner\/name: there is no such file here, and as a Hub data set: /,
        { env },
      ],
      [
        ["generate", "--model", "owner/name", "--prompt", "x"],
        /^whet: owner\/name: .*HF_HUB_OFFLINE/,
        { env: { ...env, HF_HUB_OFFLINE: "1" } },
      ],
    ]);
    const seconds = (performance.now() - began) / 1000;
    assertEquals(seconds < 15, true, `it took ${seconds} s`);
  }));
