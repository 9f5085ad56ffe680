import { assertEquals, assertRejects } from "@std/assert";
import { Metrics, type MetricsLine } from "../src/train/metrics.ts";
import { WhetError } from "../src/errors.ts";
import type { TrainStep } from "../src/train/trainer.ts";
import { inTempDir } from "./support/cli.ts";

function step(number: number, loss = 1 / number): TrainStep {
  const speed = { tokens: 10, tokensPerSecond: 123.456 };
  return { step: number, steps: 9, loss, learningRate: 1e-3, gradNorm: 0.5, ...speed };
}

async function write(path: string, resume: boolean, steps: TrainStep[]): Promise<void> {
  using metrics = await Metrics.open(path, resume);
  for (const each of steps) await metrics.add(each, each.step % 2 === 0);
}

async function read(path: string): Promise<MetricsLine[]> {
  const text = await Deno.readTextFile(path);
  assertEquals(text.at(-1), "\n");
  return text.trimEnd().split("\n").map((line) => JSON.parse(line));
}

Deno.test("a line holds a step's numbers, to the last bit of the loss", () =>
  inTempDir(async (directory) => {
    const path = `${directory}/metrics.jsonl`;
    await write(path, false, [{ ...step(1, 1 / 3), evalLoss: 2 }, step(2)]);
    assertEquals(await read(path), [
      {
        ...{
          step: 1,
          loss: 1 / 3,
          learning_rate: 1e-3,
          grad_norm: 0.5,
          tokens: 10,
          tokens_per_second: 123.5,
        },
        eval_loss: 2,
      },
      { step: 2, loss: 0.5, learning_rate: 1e-3, grad_norm: 0.5, tokens: 10, tokens_per_second: 123.5 },
    ]);
  }));

Deno.test("a line stands in the file as soon as its step is added", () =>
  inTempDir(async (directory) => {
    using metrics = await Metrics.open(`${directory}/metrics.jsonl`, false);
    for (let i = 1; i <= 3; i++) {
      await metrics.add(step(i));
      assertEquals((await read(`${directory}/metrics.jsonl`)).length, i);
    }
  }));

Deno.test("resumed, it keeps the steps before, drops those after and half a line", () =>
  inTempDir(async (directory) => {
    const path = `${directory}/metrics.jsonl`;
    for (const torn of ["", '{"step":6,"lo', '{"step":6,"loss":0.1}', "\0\0\0\0", "\n\nnull\n7\n[]\n"]) {
      await write(path, false, [1, 2, 3, 4, 5].map((number) => step(number)));
      await Deno.writeTextFile(path, torn, { append: true });
      await write(path, true, [step(4, 40), step(5, 50)]);
      assertEquals((await read(path)).map(({ step, loss }) => [step, loss]), [
        [1, 1],
        [2, 1 / 2],
        [3, 1 / 3],
        [4, 40],
        [5, 50],
      ]);
    }
    // Nothing is written before the first step: a command that fails until then leaves the file as it was.
    const before = await Deno.readTextFile(path);
    await write(path, false, []);
    assertEquals(await Deno.readTextFile(path), before);
    await write(path, false, [step(1)]);
    assertEquals((await read(path)).length, 1);
  }));

Deno.test("what stands in its way is an error that names it", () =>
  inTempDir(async (directory) => {
    const path = `${directory}/metrics.jsonl`;
    await Deno.mkdir(path);
    for (const resume of [true, false]) {
      const error = await assertRejects(() => write(path, resume, [step(1)]), WhetError, path);
      assertEquals(error.message.includes("\n"), false);
    }
  }));
