import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  type Batch,
  type BatchOptions,
  type BatchState,
  BatchStream,
  makeBatch,
} from "../src/data/batches.ts";
import { Dialogues } from "../src/data/dialogues.ts";
import type { Encoder, Example } from "../src/data/encode.ts";
import { WhetError } from "../src/errors.ts";
import { bits } from "../src/tensor/random.ts";
import { gpt2Tokenizer } from "../src/text/gpt2.ts";

const END = 256;
const byteLevel: Encoder = {
  vocabSize: 1_000_000,
  endOfText: END,
  encode: (text) => [...new TextEncoder().encode(text)],
};

/** Examples of given lengths in which every token has an id of its own, ascending. */
function numbered(lengths: readonly number[]): { tokens: number[] }[] {
  let id = 0;
  return lengths.map((length) => ({ tokens: Array.from({ length }, () => id++) }));
}

/** Lengths of every kind: 1, about T, far beyond, and most of them shorter. */
function lengths(count: number, longest: number, key: number): number[] {
  return Array.from({ length: count }, (_, i) => 1 + bits(i, [key, 7]) % (i % 9 === 0 ? longest : 20));
}

function stream(
  source: Iterable<Example> | AsyncIterable<Example>,
  options: Partial<BatchOptions>,
): BatchStream {
  return new BatchStream(source, byteLevel, { batchSize: 3, sequenceLength: 16, ...options });
}

async function take(batches: BatchStream, count: number): Promise<Batch[]> {
  const taken: Batch[] = [];
  for (let i = 0; i < count; i++) {
    const batch = await batches.next();
    if (!batch) break;
    taken.push(batch);
  }
  return taken;
}

/** The sequences of a batch, by its own starts and ends, whose soundness is checked. */
function sequences(batch: Batch): number[][] {
  const T = batch.tokens.length, found: number[][] = [];
  for (const field of [batch.positions, batch.starts, batch.ends]) assertEquals(field.length, T);
  for (let start = 0; start < T;) {
    const end = batch.ends[start];
    assert(end > start && end <= T, `${start} to ${end} of ${T}`);
    for (let t = start; t < end; t++) {
      assertEquals([batch.starts[t], batch.ends[t], batch.positions[t]], [start, end, t - start]);
    }
    found.push([...batch.tokens.subarray(start, end)]);
    start = end;
  }
  assertEquals(found.length, batch.examples);
  return found;
}

async function* slowly<T>(items: Iterable<T>): AsyncGenerator<T> {
  for (const item of items) yield await Promise.resolve(item);
}

Deno.test("a batch is its sequences end to end, with the next tokens that count as targets", () => {
  const batch = makeBatch([
    { tokens: Uint32Array.of(10, 11, 12), counts: Uint8Array.of(1, 1, 1) },
    { tokens: Uint32Array.of(20), counts: Uint8Array.of(1) },
    { tokens: Uint32Array.of(30, 31, 32, 33), counts: Uint8Array.of(0, 0, 1, 1) },
  ]);
  const expected: Batch = {
    tokens: Uint32Array.of(10, 11, 12, 20, 30, 31, 32, 33),
    positions: Uint32Array.of(0, 1, 2, 0, 0, 1, 2, 3),
    starts: Uint32Array.of(0, 0, 0, 3, 4, 4, 4, 4),
    ends: Uint32Array.of(3, 3, 3, 4, 8, 8, 8, 8),
    rows: Uint32Array.of(0, 1, 5, 6),
    targets: Uint32Array.of(11, 12, 32, 33),
    examples: 3,
  };
  assertEquals(batch, expected);
  assertThrows(
    () => makeBatch([{ tokens: new Uint32Array(0), counts: new Uint8Array(0) }]),
    WhetError,
    "empty",
  );
});

Deno.test("every token with a neighbour is in each epoch exactly once, and is followed by its own successor", async () => {
  for (
    const [sequenceLength, batchSize, packing] of [[16, 3, true], [16, 3, false], [3, 1, true], [
      40,
      7,
      true,
    ]] as const
  ) {
    const examples = numbered(lengths(150, 100, sequenceLength));
    // Alone with itself a token teaches nothing.
    const expected = examples.filter(({ tokens }) => tokens.length > 1).flatMap(({ tokens }) => tokens);
    const owner = new Map(examples.flatMap(({ tokens }, i) => tokens.map((id) => [id, i])));
    const epochs = 2;
    const batches = stream(examples, { sequenceLength, batchSize, packing, epochs });
    const seen: number[][] = [[], []];
    for await (const batch of batches) {
      const epoch = batches.stats.epochs;
      const found = sequences(batch);
      if (packing) assert(batch.tokens.length <= batchSize * sequenceLength);
      else assert(found.length <= batchSize);
      for (const sequence of found) {
        assert(sequence.length >= 2 && sequence.length <= sequenceLength, `${sequence.length}`);
        assert(sequence.every((id, i) => id === sequence[0] + i && owner.get(id) === owner.get(sequence[0])));
        seen[epoch].push(...sequence);
      }
      // In such a batch every row but the last of a sequence has a target.
      const last = (row: number) => row + 1 === batch.ends[row];
      assertEquals([...batch.rows], [...batch.tokens.keys()].filter((row) => !last(row)));
      assertEquals([...batch.targets], [...batch.rows].map((row) => batch.tokens[row] + 1));
    }
    for (const ids of seen) assertEquals(ids.toSorted((a, b) => a - b), expected);
    assert(seen[0].join() !== seen[1].join(), "each epoch has an order of its own");
    const { stats } = batches;
    assertEquals(stats.epochs, 2);
    assertEquals(stats.tokens, 2 * expected.length);
    assertEquals(stats.targets, stats.tokens - stats.sequences);
    assertEquals(stats.split, 2 * examples.filter(({ tokens }) => tokens.length > sequenceLength).length);
    assertEquals(stats.dropped, 2 * examples.filter(({ tokens }) => tokens.length === 1).length);
  }
});

Deno.test("a long example is cut into consecutive pieces, none of them one token if that can be helped", async () => {
  const cut = async (length: number, sequenceLength: number) => {
    const options = { batchSize: 1, sequenceLength, packing: false, shuffle: false, epochs: 1 };
    return (await take(stream(numbered([length]), options), 99)).map(({ tokens }) => tokens.length);
  };
  assertEquals(await cut(16, 16), [16]);
  assertEquals(await cut(17, 16), [15, 2]);
  assertEquals(await cut(18, 16), [16, 2]);
  assertEquals(await cut(33, 16), [16, 15, 2]);
  assertEquals(await cut(4, 3), [2, 2]);
  assertEquals(await cut(5, 2), [2, 2]);
});

Deno.test("with the loss on responses, pieces without any are dropped", async () => {
  const source: Example[] = [{ prompt: "a".repeat(40), response: "bcdefghijk" }, {
    prompt: "?",
    response: "!",
  }];
  const options = { sequenceLength: 8, lossOn: "responses", shuffle: false, epochs: 1 } as const;
  const batches = stream(source, options);
  const [batch] = await take(batches, 9);
  const shown = sequences(batch).map((ids) =>
    ids.map((id) => id === END ? "#" : String.fromCharCode(id)).join("")
  );
  // 40 + 11 tokens: five pieces of prompt, then "bcdefghi", whose b has nothing before it, and "jk#".
  assertEquals(shown, ["bcdefghi", "jk#", "?!#"]);
  assertEquals(
    String.fromCharCode(...batch.targets),
    `cdefghik${String.fromCharCode(END)}!${String.fromCharCode(END)}`,
  );
  assertEquals(batches.stats.dropped, 5);
  assertEquals(batches.stats.split, 1);
});

Deno.test("the same seed gives the same batches, another one others, and no shuffling the order of the data", async () => {
  const examples = numbered(lengths(60, 50, 1));
  const run = async (options: Partial<BatchOptions>) =>
    (await take(stream(examples, { epochs: 2, ...options }), 999)).map(({ tokens }) => tokens.join());
  assertEquals(await run({ seed: 5 }), await run({ seed: 5 }));
  assert((await run({ seed: 5 })).join() !== (await run({ seed: 6 })).join());
  const [first, ...rest] = (await run({ shuffle: false, packing: false })).flatMap((ids) =>
    ids.split(",").map(Number)
  );
  let last = first, falls = 0;
  for (const id of rest) {
    if (id < last) falls++;
    last = id;
  }
  assertEquals(falls, 1); // Where the second epoch begins.
});

Deno.test("a shuffle brings every example to every place", async () => {
  const examples = numbered(Array.from({ length: 6 }, () => 2));
  const places = Array.from({ length: 6 }, () => new Set<number>());
  for (let seed = 0; seed < 60; seed++) {
    const options = { batchSize: 1, sequenceLength: 2, packing: false, epochs: 1, seed };
    for (const [place, { tokens }] of (await take(stream(examples, options), 9)).entries()) {
      places[place].add(tokens[0] / 2);
    }
  }
  for (const place of places) assertEquals(place.size, 6);
});

Deno.test("a run taken up again at any batch goes on as if it had never stopped", async () => {
  const examples = numbered(lengths(80, 60, 3));
  for (const packing of [true, false]) {
    for (const source of [() => examples, () => Dialogues.from(examples), () => slowly(examples)]) {
      const options = { epochs: 3, packing, seed: 9 };
      const whole = stream(source(), options);
      const states: string[] = [JSON.stringify(whole.state)], batches: Batch[] = [];
      for await (const batch of whole) {
        batches.push(batch);
        states.push(JSON.stringify(whole.state));
      }
      for (let step = 0; step <= batches.length; step += 5) {
        const resumed = stream(source(), options);
        await resumed.restore(JSON.parse(states[step]));
        const rest = await take(resumed, 8);
        assertEquals(rest, batches.slice(step, step + 8), `at ${step}`);
        const after = await take(resumed, 999);
        assertEquals(rest.length + after.length, batches.length - step);
        assertEquals(resumed.stats, whole.stats);
      }
      assert(Math.max(...states.map((state) => state.length)) < 2000);
    }
  }
});

Deno.test("a state that is damaged or belongs to other data is refused", async () => {
  const examples = numbered(lengths(80, 60, 3));
  const batches = stream(examples, {});
  await take(batches, 4);
  const { state } = batches;
  const refused = async (source: Iterable<Example>, state: unknown) =>
    (await assertRejects(() => stream(source, {}).restore(state as BatchState), WhetError)).code;
  assertEquals(await refused(examples.slice(1), state), "mismatch");
  assertEquals(await refused(examples.map(() => ({ tokens: [1, 2] })), state), "mismatch");
  assertEquals(
    await refused(numbered(lengths(70, 60, 3)).values(), { ...state, length: null, position: 75 }),
    "mismatch",
  );
  assertEquals(await refused(examples, { ...state, position: 81 }), "mismatch");
  assertEquals(await refused(examples, { ...state, position: 80, offset: 4 }), "mismatch");
  assertEquals(await refused(examples, { ...state, waiting: [[80, 0, 2]] }), "mismatch");
  const damaged = [null, {}, 3, { ...state, position: -1 }, { ...state, offset: 0.5 }, {
    ...state,
    waiting: [[1]],
  }];
  for (
    const bad of [...damaged, { ...state, waiting: "x" }, { ...state, stats: {} }, { ...state, stats: null }]
  ) {
    assertEquals(await refused(examples, bad), "format", JSON.stringify(bad));
  }
  // What was refused has changed nothing.
  const other = stream(examples, {});
  await assertRejects(() => other.restore({ ...state, position: 81 }), WhetError);
  assertEquals(await other.next(), await stream(examples, {}).next());
});

Deno.test("an endless source is pulled only as far as batches need it, and may tidy up", async () => {
  let pulled = 0, closed = false;
  const endless = async function* () {
    try {
      while (true) yield await Promise.resolve({ text: `number ${pulled++}` });
    } finally {
      closed = true;
    }
  };
  const batches = stream(endless(), { batchSize: 2, sequenceLength: 16 });
  assertEquals(pulled, 0);
  await take(batches, 10);
  assert(pulled < 10 * 4 + 65, `${pulled}`);
  assertEquals(await batches.total(), Infinity);
  assert(!closed);
  await batches.close();
  assert(closed);

  pulled = 0;
  const plain = stream(endless(), { batchSize: 2, packing: false });
  await take(plain, 3);
  assertEquals(pulled, 6);
  await plain.close();
});

Deno.test("a source that gives examples one by one is read once, and shuffled from the second epoch on", async () => {
  let begun = 0;
  const examples = numbered(Array.from({ length: 30 }, () => 2));
  const source = {
    *[Symbol.iterator]() {
      begun++;
      yield* examples;
    },
  };
  const batches = stream(source, { batchSize: 1, packing: false, epochs: 3 });
  const ids = (await take(batches, 999)).map(({ tokens }) => tokens[0] / 2);
  assertEquals(begun, 1);
  const inOrder = examples.map((_, i) => i);
  assertEquals(ids.slice(0, 30), inOrder);
  for (const epoch of [ids.slice(30, 60), ids.slice(60)]) {
    assert(epoch.join() !== inOrder.join());
    assertEquals(epoch.toSorted((a, b) => a - b), inOrder);
  }
  batches.rewind();
  assertEquals((await take(batches, 999)).map(({ tokens }) => tokens[0] / 2), ids);
  assertEquals(begun, 1);
});

Deno.test("the number of batches in all is known before the first, and counting them changes nothing", async () => {
  const examples = numbered(lengths(100, 50, 4));
  for (const source of [() => examples, () => slowly(examples)]) {
    const options = { epochs: 2, seed: 3 };
    const expected = await take(stream(source(), options), 999);
    const batches = stream(source(), options);
    assertEquals(await batches.total(), expected.length);
    const first = await take(batches, 5);
    assertEquals(await batches.total(), expected.length);
    assertEquals([...first, ...await take(batches, 999)], expected);
    assertEquals(await batches.total(), expected.length);
  }
});

Deno.test("data that cannot train are refused", async () => {
  const refused = async (
    source: Iterable<Example> | AsyncIterable<Example>,
    options: Partial<BatchOptions> = {},
  ) => (await assertRejects(async () => await stream(source, options).next(), WhetError)).message;
  assert((await refused([])).includes("the data are empty"));
  assert((await refused(Dialogues.from([{ text: "a" }]).slice(1))).includes("the data are empty"));
  assert((await refused(slowly([]))).includes("the data are empty"));
  assert((await refused([{ tokens: [1] }, { tokens: [2] }])).includes("nothing to learn in 2 examples"));
  const barren = function* () {
    while (true) yield { tokens: [1] };
  };
  assert((await refused(barren())).includes("nothing to learn"));
  assert((await refused("text" as unknown as Example[])).includes("expected Dialogues or an iterable"));
  assert((await refused(null as unknown as Example[])).includes("expected Dialogues or an iterable"));
  assert(
    (await refused([{ text: "a" }, { txt: "b" } as unknown as Example])).startsWith("example 2: expected"),
  );
  assert((await refused(slowly([3 as unknown as Example]))).startsWith("example 1: expected"));
  const file = await Dialogues.parse('{"prompt": "a", "response": "b"}\n\n{"text": "c"}', "mixed.jsonl");
  const message = await refused(file, { lossOn: "responses" });
  assert(message.startsWith("mixed.jsonl, line 3: nothing to learn"), message);
});

Deno.test("a bad example of a list is found before the first batch, of another source when it comes", async () => {
  const examples: Example[] = [...numbered([2, 2, 2]), { tokens: [9_999_999] }];
  assertThrows(() => stream(examples, {}), WhetError, "example 4");
  const batches = stream(slowly(examples), { batchSize: 1, packing: false });
  assertEquals((await take(batches, 3)).length, 3);
  await assertRejects(() => batches.next(), WhetError, "example 4");
});

Deno.test("options that make no sense are refused by name", () => {
  const cases: [Partial<BatchOptions>, string][] = [
    [{ sequenceLength: 1 }, "sequenceLength: expected a whole number of at least 2, got 1"],
    [{ batchSize: 0 }, "batchSize"],
    [{ batchSize: 1.5 }, "batchSize"],
    [{ epochs: 0 }, "epochs"],
    [{ seed: -1 }, "seed"],
    [{ seed: NaN }, "seed"],
    [{ lossOn: "response" as "all" }, 'lossOn: expected "all" or "responses", got "response"'],
  ];
  for (const [options, said] of cases) {
    assertEquals(assertThrows(() => stream([{ text: "ab" }], options), WhetError, said).code, "option");
  }
});

Deno.test("what does not fit waits for the next batch, and what fits best goes before", async () => {
  const examples = numbered([10, 10, 10, 12, 4, 6, 5, 20]);
  const options = { batchSize: 2, sequenceLength: 20, shuffle: false, epochs: 1 };
  const filled = (await take(stream(examples, options), 9)).map((batch) =>
    sequences(batch).map(({ length }) => length)
  );
  assertEquals(filled, [[10, 10, 10, 6, 4], [12, 5, 20]]);
});

const SAMPLE = new URL("../../shared/data/hh-rlhf-sample.jsonl.gz", import.meta.url);
const missing = !await Deno.stat(SAMPLE).then(() => true, () => false);

Deno.test({
  name: "real dialogues fill more than 99 of 100 places of packed batches, and none is lost",
  ignore: missing,
  async fn() {
    const data = await Dialogues.load(SAMPLE), tokenizer = await gpt2Tokenizer();
    const options = { batchSize: 4, sequenceLength: 256, epochs: 1, seed: 1 };
    const batches = new BatchStream(data, tokenizer, options);
    let tokens = 0, most = 0;
    for await (const batch of batches) {
      sequences(batch);
      tokens += batch.tokens.length;
      most = Math.max(most, batch.tokens.length);
    }
    const { stats } = batches;
    assertEquals(most, 1024);
    const fill = tokens / (stats.batches * 1024);
    assert(fill > 0.99, `${fill}`);
    let expected = 0;
    for (const example of data) {
      expected += tokenizer.encode((example as { chosen: string }).chosen).length + 1;
    }
    assertEquals(tokens, expected);
    assertEquals(stats.dropped, 0);
  },
});
