import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Progress, type ProgressOptions } from "../src/report/progress.ts";

/** A terminal or a log file that remembers what was written, and a clock that is set by hand. */
function stage(terminal: boolean, options: Partial<ProgressOptions> = {}) {
  const state = { text: "", time: 0, columns: 80 };
  const progress = new Progress({
    ...{ total: 100, label: "train", color: false, clock: () => state.time, columns: () => state.columns },
    stream: {
      writeSync(bytes) {
        const taken = bytes.subarray(0, 7); // a pipe may take a part at a time
        state.text += String.fromCharCode(...taken);
        return taken.length;
      },
      isTerminal: () => terminal,
    },
    ...options,
  });
  const written = () => new TextDecoder().decode(Uint8Array.from(state.text, (c) => c.charCodeAt(0)));
  return { state, progress, written, lines: () => written().split("\n").slice(0, -1) };
}

/** What a terminal of one line shows after carriage returns and erasures. */
function shown(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.split("\n").at(-1)!.split("\r").at(-1)!.replace(/\x1b\[K/g, "");
}

Deno.test("on a terminal one line is redrawn, with share, figures and time left", () => {
  const { state, progress, written } = stage(true);
  progress.update({ done: 0, fields: { loss: "3.1000", "tokens/s": 1204.4 } });
  state.time = 10_000;
  progress.update({ done: 25, fields: { loss: "2.1039", "tokens/s": 1204 } });
  assertMatch(
    shown(written()),
    /^train {2}[█·▏▎▍▌▋▊▉]{8,24} {3}25 % {2}25\/100 {2}loss 2.1039 {2}1,204 tokens\/s {2}30 s left$/,
  );
  assert(!written().includes("\n"));
  progress.finish();
  assert(written().endsWith("\n"));
});

Deno.test("redrawing is rare enough for a fast loop, and the last state is always shown", () => {
  const { state, progress, written } = stage(true);
  for (let done = 1; done <= 100; done++, state.time += 5) progress.update({ done });
  assert(written().split("\r").length - 1 <= 6, `${written().split("\r").length - 1} redraws`);
  progress.finish();
  assertStringIncludes(written().split("\r").at(-1)!, "100 %");
  assertStringIncludes(written().split("\r").at(-1)!, "in 0.5 s");
});

Deno.test("a line never fills the console, however narrow", () => {
  for (const columns of [1, 8, 20, 33, 47, 60, 80, 200]) {
    const { state, progress, written } = stage(true, { label: "model-00001-of-00002.safetensors" });
    state.columns = columns;
    progress.update({ done: 1, fields: { loss: 2.1, "tokens/s": 1204, "learning rate": 0.0002 } });
    state.time = 5000;
    progress.update({ done: 50, fields: { loss: 2.1, "tokens/s": 1204, "learning rate": 0.0002 } });
    assert([...shown(written())].length < Math.max(9, columns), `${columns}: ${shown(written())}`);
    assert(shown(written()).length > 0);
  }
  const { progress, written } = stage(true, {
    columns: () => {
      throw new Error("not a console");
    },
  });
  progress.update({ done: 50 });
  assertStringIncludes(shown(written()), "50 %");
});

Deno.test("into a file go plain lines, at every tenth of the work or as time passes", () => {
  const quick = stage(false);
  for (let done = 1; done <= 100; done++, quick.state.time += 5) quick.progress.update({ done });
  quick.progress.finish();
  assertEquals(quick.lines().length, 10);
  // deno-lint-ignore no-control-regex
  assert(!/[\r\x1b█]/.test(quick.written()));
  assertMatch(quick.lines()[4], /^train {3}50 % {2}50\/100 {2}0\.\d s left$/);

  const slow = stage(false, { total: 60_000 });
  for (let done = 1; done <= 60_000; done++, slow.state.time += 700) slow.progress.update({ done });
  slow.progress.finish();
  assert(slow.lines().length > 20 && slow.lines().length < 120, `${slow.lines().length} lines in half a day`);
});

Deno.test("bytes are counted with sizes and a pace, also where nobody knows the total", () => {
  const known = stage(true, { total: 548_105_171, label: "model.safetensors", unit: "bytes" });
  known.progress.update({ done: 0 });
  known.state.time = 2000;
  known.progress.update({ done: 137_000_000 });
  assertMatch(shown(known.written()), /24 % {2}137 MB\/548 MB {2}68.5 MB\/s {2}6 s left$/);
  const unknown = stage(true, { total: undefined, unit: "bytes", label: "data" });
  unknown.progress.update({ done: 12_345_678 });
  assertEquals(shown(unknown.written()), "data  12.3 MB");
});

Deno.test("a resumed run reckons its time from where it began", () => {
  const { state, progress, written } = stage(true, { total: 1000 });
  progress.update({ done: 900 });
  state.time = 10_000;
  progress.update({ done: 950 });
  assertStringIncludes(shown(written()), "10 s left");
  state.time = 20_000;
  progress.update({ done: 951, eta: 77 });
  assertStringIncludes(shown(written()), "1 min 17 s left");
});

Deno.test("notes stand on their own line and the bar comes back below", () => {
  const { progress, written } = stage(true);
  progress.update({ done: 10 });
  progress.note("step 10: held-out loss 2.1");
  assertStringIncludes(written(), "\r\x1b[Kstep 10: held-out loss 2.1\n\rtrain");
  progress.finish();
  progress.note("done");
  assert(written().endsWith("\ndone\n"));
});

Deno.test("quiet writes nothing, and after the end nothing more comes", () => {
  const quiet = stage(true, { quiet: true });
  quiet.progress.update({ done: 50 });
  quiet.progress.note("hello");
  quiet.progress.finish();
  assertEquals(quiet.written(), "");
  const ended = stage(true);
  ended.progress.finish();
  assertEquals(ended.written(), "");
  ended.progress.update({ done: 100 });
  assertEquals(ended.written(), "");
});

Deno.test("a closed pipe, a stuck stream and odd figures never throw", () => {
  const broken = new Progress({
    total: 0,
    stream: {
      writeSync: () => {
        throw new Deno.errors.BrokenPipe("closed");
      },
      isTerminal: () => {
        throw new Error("gone");
      },
    },
  });
  broken.update({ done: 1 });
  broken.note("x");
  broken.finish();
  const stuck = new Progress({ total: 10, stream: { writeSync: () => 0, isTerminal: () => true } });
  stuck.update({ done: 5 });
  stuck.finish();
  const { progress, written } = stage(true, { total: 10 });
  progress.update({ done: NaN, fields: { loss: NaN, x: Infinity }, eta: NaN });
  progress.update({ done: 50 });
  progress.finish();
  assert(!written().includes("undefined"));
});

Deno.test("a name from a server cannot steer the terminal, and colour is only where it is wanted", () => {
  const { progress, written } = stage(true, { label: "a\x1b[2J\rb\nc" });
  progress.update({ done: 10, fields: { "x\x07": "\x1b]0;evil\x07" } });
  // deno-lint-ignore no-control-regex
  assert(!/\x1b(?!\[K)|\x07|\n/.test(written()), JSON.stringify(written()));
  const colored = stage(true, { color: true });
  colored.progress.update({ done: 10 });
  assertStringIncludes(colored.written(), "\x1b[36m");
});
