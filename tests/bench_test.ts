/**
 * The bench's own parts: its sums, its table, its page, its files for peers, and that one peer's failure is its own.
 */
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import type { Files } from "../benchmarks/harness/files.ts";
import { numbers, tokens } from "../benchmarks/harness/inputs.ts";
import type { Machine } from "../benchmarks/harness/machine.ts";
import { measure } from "../benchmarks/harness/measure.ts";
import { Peer } from "../benchmarks/harness/process.ts";
import { merge, render, replaceSection, type WorkRecord } from "../benchmarks/harness/report.ts";
import { median, summarise } from "../benchmarks/harness/statistics.ts";
import { Absent, type Context, type Entrant, type Work } from "../benchmarks/harness/work.ts";
import { ggufContent, ggufHeader, quantize } from "../benchmarks/models/gguf.ts";
import { Graph } from "../benchmarks/models/onnx.ts";

Deno.test("a median is the middle one of an odd number, and between the middle two of an even one", () => {
  assertEquals(median([3, 1, 2]), 2);
  assertEquals(median([10, 1, 2, 3]), 2.5);
  assertEquals(median([7]), 7);
  assertThrows(() => median([]), RangeError);
});

Deno.test("runs are summed up by their median, parts of one work by the whole", () => {
  const samples = [{ amount: 10, seconds: 1 }, { amount: 10, seconds: 2 }, { amount: 40, seconds: 5 }];
  assertEquals(summarise(samples, "median"), { value: 8, low: 5, high: 10 });
  assertEquals(summarise(samples, "whole"), { value: 60 / 8, low: 5, high: 10 });
});

const machine: Machine = { cpu: "CPU", cores: 2, memory: 8, system: "linux", deno: "2", v8: "15" };

function record(over: Partial<WorkRecord> = {}): WorkRecord {
  return {
    ...{
      name: "speed",
      title: "speed",
      unit: "tokens/s",
      better: "more",
      ratio: "whet/other",
      statistic: "median",
    },
    ...{ runs: 5, threads: 2, quick: false, date: "2026-01-02" },
    results: [
      { name: "Whet", version: "Whet 1", value: 150, low: 140, high: 160 },
      { name: "other", version: "Torch 2, PEFT 3", value: 100, low: 90, high: 101.4 },
      { name: "broken", failed: "no | luck" },
      { name: "missing", absent: "no Python" },
    ],
    comparisons: [
      { whet: "Whet", beside: "other", target: 1.6 },
      { whet: "Whet", beside: "broken", target: 2 },
      { whet: "Whet", beside: "missing" },
      { whet: "Whet", beside: "nobody" },
    ],
    ...over,
  } as WorkRecord;
}

/** The table's lines, their cells without padding. */
function rows(works: WorkRecord[]): string[][] {
  return render({ machine, works }).split("\n").filter((line) => line.startsWith("| "))
    .map((line) => line.slice(2, -2).split(/(?<!\\)\|/).map((cell) => cell.trim())).slice(2);
}

Deno.test("the table has figures, spread, ratio and target, or the reason why a figure is missing", () => {
  assertEquals(rows([record()]), [
    ["speed (tokens/s)", "Whet", "150", "140 – 160", "other", "100", "90.0 – 101", "1.50 ×", "≥ 1.6 × ✗"],
    ["", "Whet", "150", "140 – 160", "broken", "failed", "", "—", "≥ 2 ×"],
    ["", "Whet", "150", "140 – 160", "missing", "left out", "", "—", ""],
    ["", "Whet", "150", "140 – 160", "nobody", "not run", "", "—", ""],
  ]);
  const text = render({ machine, works: [record()] });
  assertStringIncludes(
    text,
    "\n- speed, broken failed: no \\| luck\n- speed, missing is left out: no Python\n",
  );
  assertStringIncludes(text, "Medians of 5 runs each, 2026-01-02");
  assertStringIncludes(text, "Measured: PEFT 3, Torch 2, Whet 1.");
});

Deno.test("where less is better targets are upper bounds, of a ratio or of a figure; sooner is a ratio the other way", () => {
  const results = [{ name: "Whet", value: 2, low: 2, high: 2 }, {
    name: "other",
    value: 10,
    low: 9,
    high: 11,
  }];
  const less = (ratio: "whet/other" | "other/whet", comparison: WorkRecord["comparisons"][number]) =>
    rows([record({ better: "less", unit: "MB", ratio, results, comparisons: [comparison] })])[0].slice(-2);
  assertEquals(less("whet/other", { whet: "Whet", beside: "other", target: 0.6 }), ["0.200 ×", "≤ 0.6 × ✓"]);
  assertEquals(less("whet/other", { whet: "Whet", beside: "other", target: 0.1 }), ["0.200 ×", "≤ 0.1 × ✗"]);
  assertEquals(less("other/whet", { whet: "Whet", beside: "other", target: 8 }), ["5.00 ×", "≥ 8 × ✗"]);
  assertEquals(less("whet/other", { whet: "Whet", target: 350 }), ["—", "≤ 350 MB ✓"]);
  assertEquals(less("whet/other", { whet: "Whet", target: 1 }), ["—", "≤ 1 MB ✗"]);
});

Deno.test("works measured again replace what is known of the same machine, contestant by contestant", () => {
  const first = merge(null, machine, [record(), record({ name: "memory" })], ["speed", "memory"]);
  const again = record({ results: [{ name: "Whet", value: 200, low: 1, high: 2 }] });
  const second = merge(first, machine, [again], ["memory", "speed"]);
  assertEquals(second.works.map(({ name }) => name), ["memory", "speed"]);
  const [whet, other] = second.works[1].results;
  assertEquals([whet.value, whet.earlier], [200, undefined]);
  assertEquals([other.value, other.earlier], [100, true]);
  assertEquals(rows([second.works[1]])[0].slice(1, 8), [
    ...["Whet", "200", "1.00 – 2.00", "other", "100 †", "90.0 – 101", "2.00 ×"],
  ]);

  // Not beside figures of another machine, nor of a quick try.
  assertEquals(merge(first, { ...machine, cores: 4 }, [again], []).works.length, 1);
  const quick = merge(first, machine, [{ ...again, quick: true }], ["speed", "memory"]);
  assertEquals(quick.works[0].results.length, 1);
  assertStringIncludes(render(quick), "no measurements: speed.**");
});

Deno.test("the page's generated section is replaced, and nothing else of it", () => {
  const page = replaceSection("# Bench\n\nWords.\n", "old\n");
  assertStringIncludes(page, "# Bench\n\nWords.\n\n<!-- bench");
  const around = page.replace("<!-- /bench -->", "<!-- /bench -->\n\nMore words with $& and $1.");
  const replaced = replaceSection(around, "new $& $1");
  assertEquals(replaced, around.replace("old", () => "new $& $1"));
  assertEquals(replaceSection(replaced, "new $& $1"), replaced);
  assertThrows(() => replaceSection(page.replace("<!-- /bench -->", ""), "new"), Error, "no <!-- /bench -->");
});

/** A contestant that takes down when it was run. */
function contestant(name: string, log: string[], over: Partial<Entrant> = {}) {
  return {
    name,
    open: () =>
      Promise.resolve({
        version: `${name} 1`,
        run() {
          log.push(name);
          return Promise.resolve({ amount: 6, seconds: 2 });
        },
        check: () => Promise.resolve(name),
        [Symbol.asyncDispose]() {
          log.push(`${name} ends`);
          return Promise.resolve();
        },
        ...over,
      }),
  };
}

Deno.test("contestants run in turn, there and back; who fails leaves, and the others go on", async () => {
  const log: string[] = [];
  let left = 3;
  const contestants = [
    contestant("a", log),
    contestant("breaks", log, {
      run() {
        log.push("breaks");
        if (--left === 0) throw new Error("cannot read /home/someone/secret/file: it is gone\nat line 3");
        return Promise.resolve({ amount: 1, seconds: 1 });
      },
    }),
    { name: "missing", open: () => Promise.reject(new Absent("no Python was named")) },
    { name: "dead", open: () => Promise.reject(new Error("no such program")) },
    contestant("wrong", log),
    contestant("b", log),
  ];
  const work = {
    ...{ name: "w", title: "w", unit: "/s", better: "more", contestants, comparisons: [] },
    judge: (name: string, answer: unknown, first: unknown) => {
      assertEquals([answer, first], [name, "a"]);
      return name === "wrong" ? "seven" : null;
    },
  } as Work;
  const context: Context = { threads: 1, runs: 2, quick: true, python: null, pause: 0, files: {} as Files };
  const results = await measure(work, contestants, context, () => {});
  const [a, breaks, missing, dead, wrong, b] = results;
  assertEquals([a.value, a.version, a.samples?.length], [3, "a 1", 2]);
  assertEquals(b.value, 3);
  assertEquals(breaks.failed, "cannot read …: it is gone");
  assertEquals([missing.absent, missing.failed], ["no Python was named", undefined]);
  assertEquals(dead.failed, "no such program");
  assertEquals([wrong.failed, wrong.value, wrong.samples], [
    "it does something else: seven",
    undefined,
    undefined,
  ]);
  assertEquals(log.slice(0, 4), ["a", "breaks", "wrong", "b"], "one warm-up each");
  assertEquals(log.slice(4, 12), ["a", "breaks", "wrong", "b", "b", "wrong", "breaks", "a"]);
  assertEquals(log.slice(12).sort(), ["a ends", "b ends", "breaks ends", "wrong ends"]);
});

/** A peer that is a few lines of JavaScript, run for each line that it is asked. */
function peer(reaction: string): Peer {
  const script = `
    const say = (line) => console.log(line);
    for await (const bytes of Deno.stdin.readable) { const question = JSON.parse(new TextDecoder().decode(bytes)); ${reaction} }`;
  return new Peer({ command: Deno.execPath(), args: ["eval", "--no-config", script] });
}

Deno.test("a peer's answers are read between what else is printed", async () => {
  await using talker = peer(`say("loading…"); say('{"answer":' + question.value * 2 + "}");`);
  assertEquals(await talker.ask({ do: "double", value: 21 }), 42);
  assertEquals(await talker.ask({ do: "double", value: 4 }), 8);
  if (Deno.build.os === "linux") assert(await talker.peakMemory() > 1e6);
});

Deno.test("a peer that refuses, dies or is silent says so in one line", async () => {
  await using refuses = peer(`say('{"error":"not today"}');`);
  await assertRejects(() => refuses.ask({ do: "it" }), Error, "not today");
  await using dies = peer(`console.error("Error: out of luck"); Deno.exit(3);`);
  await assertRejects(() => dies.ask({ do: "it" }), Error, "Error: out of luck");
  await using silent = peer(`setInterval(() => {}, 1000);`);
  await assertRejects(() => silent.ask({ do: "it" }, 0.5), Error, "no answer in 0.5 s");
});

Deno.test("inputs are the same everywhere: numbers in [−1, 1), token ids that do not end a text", () => {
  const values = numbers(1000, 1);
  assert(values.every((value) => value >= -1 && value < 1));
  assert(Math.abs(values.reduce((sum, value) => sum + value) / 1000) < 0.1);
  assertEquals(numbers(3, 1), values.slice(0, 3));
  assert(numbers(3, 2)[0] !== values[0]);
  assert(tokens(1000, 3).every((token) => Number.isInteger(token) && token >= 0 && token < 50256));
  assert(new Set(tokens(1000, 3)).size > 950);
});

/** Reads a GGUF file's header as the format's description says. */
function parseGguf(bytes: Uint8Array) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const u32 = () => view.getUint32((at += 4) - 4, true);
  const u64 = () => Number(view.getBigUint64((at += 8) - 8, true));
  const text = () => {
    const length = u64();
    return new TextDecoder().decode(bytes.subarray(at, at += length));
  };
  const value = (type: number): unknown => {
    if (type === 4 || type === 5) return u32();
    if (type === 6) return view.getFloat32((at += 4) - 4, true);
    if (type === 8) return text();
    assertEquals(type, 9);
    const element = u32();
    return Array.from({ length: u64() }, () => value(element));
  };
  const magic = new TextDecoder().decode(bytes.subarray(0, 4));
  at = 4;
  const [version, tensorCount, noteCount] = [u32(), u64(), u64()];
  const notes = Object.fromEntries(Array.from({ length: noteCount }, () => [text(), value(u32())]));
  const tensors = Array.from({ length: tensorCount }, () => {
    const name = text();
    const shape = Array.from({ length: u32() }, u64);
    return { name, shape, type: u32(), place: u64() };
  });
  return { magic, version, notes, tensors, data: Math.ceil(at / 32) * 32 };
}

Deno.test("a GGUF file says what it holds, and its tensors lie where it says", async () => {
  const notes = {
    "general.architecture": "gpt2",
    "gpt2.block_count": 12,
    "gpt2.epsilon": { float: 0.5 },
    "tokens": ["a", "Ġé", ""],
    "types": [1, 3],
  };
  const q = numbers(64, 1), f = numbers(5, 2);
  const tensors = [
    { name: "five", shape: [5], type: "f32", values: () => Promise.resolve(f) },
    { name: "matrix", shape: [2, 32], type: "q8_0", values: () => Promise.resolve(q) },
    { name: "last", shape: [5, 1], type: "f32", values: () => Promise.resolve(f) },
  ] as const;
  const pieces = await Array.fromAsync(ggufContent(notes, tensors));
  const file = new Uint8Array(await new Blob(pieces).arrayBuffer());
  const { magic, version, notes: read, tensors: places, data } = parseGguf(file);
  assertEquals([magic, version], ["GGUF", 3]);
  assertEquals(read, { ...notes, "gpt2.epsilon": 0.5 });
  assertEquals(places, [
    { name: "five", shape: [5], type: 0, place: 0 },
    { name: "matrix", shape: [32, 2], type: 8, place: 32 },
    { name: "last", shape: [1, 5], type: 0, place: 128 },
  ]);
  assertEquals(data, ggufHeader(notes, tensors).length);
  assertEquals(file.length, data + 160);
  assertEquals(new Float32Array(file.slice(data, data + 20).buffer), f);
  assertEquals(file.slice(data + 32, data + 100), quantize(q));
  await assertRejects(
    () => Array.fromAsync(ggufContent(notes, [{ ...tensors[0], shape: [6] }])),
    Error,
    "five: 5 values do not fill 6",
  );
});

Deno.test("Q8_0 keeps numbers to half a step of their group's scale", () => {
  const values = numbers(96, 4);
  values.fill(0, 32, 64);
  const bytes = quantize(values);
  assertEquals(bytes.length, 3 * 34);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < 96; i++) {
    const at = Math.floor(i / 32) * 34;
    const scale = view.getFloat16(at, true);
    assertAlmostEquals(scale * view.getInt8(at + 2 + i % 32), values[i], 0.5 / 127 + 5e-4);
  }
});

/** A protocol buffer's fields: number → whole numbers, or bytes. */
function fields(bytes: Uint8Array): Map<number, (number | Uint8Array)[]> {
  const found = new Map<number, (number | Uint8Array)[]>();
  let at = 0;
  const varint = () => {
    let value = 0n, shift = 0n;
    do value |= BigInt(bytes[at] & 0x7f) << shift, shift += 7n; while (bytes[at++] & 0x80);
    return Number(BigInt.asIntN(64, value));
  };
  while (at < bytes.length) {
    const key = varint();
    assert([0, 2].includes(key & 7));
    const value = varint();
    const content = (key & 7) === 2 ? bytes.subarray(at, at += value) : value;
    found.set(key >> 3, [...found.get(key >> 3) ?? [], content]);
  }
  return found;
}

Deno.test("an ONNX file has the graph's nodes, constants and ports in the format's fields", async () => {
  const graph = new Graph(
    [{ name: "a", type: "float", shape: ["B", 2] }],
    [{ name: "out", type: "float", shape: ["B", 300] }],
  );
  const b = graph.constant(numbers(600, 1), [2, 300]);
  graph.add("Softmax", [graph.add("MatMul", ["a", b])], { axis: -1 }, ["out"]);
  const bytes = new Uint8Array(await new Blob(graph.file(17) as Uint8Array<ArrayBuffer>[]).arrayBuffer());
  const words = (part: number | Uint8Array) => new TextDecoder().decode(part as Uint8Array);
  const model = fields(bytes);
  assertEquals(fields(model.get(8)![0] as Uint8Array).get(2), [17]);
  const content = fields(model.get(7)![0] as Uint8Array);
  const [product, softmax] = content.get(1)!.map((node) => fields(node as Uint8Array));
  assertEquals(product.get(1)!.map(words), ["a", b]);
  assertEquals(words(product.get(4)![0]), "MatMul");
  assertEquals(softmax.get(1)!.map(words), product.get(2)!.map(words));
  assertEquals(softmax.get(2)!.map(words), ["out"]);
  const axis = fields(softmax.get(5)![0] as Uint8Array);
  assertEquals([words(axis.get(1)![0]), axis.get(3)![0]], ["axis", -1]);
  const tensor = fields(content.get(5)![0] as Uint8Array);
  assertEquals(tensor.get(1), [2, 300]);
  assertEquals(words(tensor.get(8)![0]), b);
  assertEquals(new Float32Array((tensor.get(9)![0] as Uint8Array).slice().buffer), numbers(600, 1));
  assertEquals([...content.keys()].sort((a, b) => a - b), [1, 2, 5, 11, 12]);
});
