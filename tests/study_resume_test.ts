import { assert, assertEquals } from "@std/assert";
import { inTempDir } from "./support/cli.ts";
import { leftBehind } from "./support/study.ts";

const script = new URL("./support/study_child.ts", import.meta.url).pathname;

function begin(out: string): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "-A", script, out],
    ...{ stdin: "null", stdout: "piped", stderr: "inherit" },
  }).spawn();
}

/** Runs a study, to its end or until so many things happened and some milliseconds went by; how many happened. */
async function run(out: string, until = Infinity, pause = 0): Promise<{ events: number; killed: boolean }> {
  const child = begin(out);
  let events = 0, killed = false;
  for await (const bytes of child.stdout) {
    events += bytes.filter((byte) => byte === 10).length;
    if (killed || events < until) continue;
    await new Promise((resolve) => setTimeout(resolve, pause));
    killed = true;
    try {
      child.kill("SIGKILL");
    } catch {
      // It came to its end meanwhile.
    }
  }
  const { code } = await child.status;
  if (until === Infinity) assertEquals(code, 0);
  return { events, killed: code !== 0 };
}

Deno.test({
  name: "a study killed at random points ends as one that never was",
  ignore: Deno.build.os === "windows",
  fn: () =>
    inTempDir(async (directory) => {
      const whole = `${directory}/whole`, out = `${directory}/out`;
      const { events } = await run(whole);
      assert(events > 30, `${events} events`);
      // One in each third of what there is to do, told if the test fails.
      const moments = [0, 1, 2].map((third) => {
        const share = (third + Math.random()) / 3;
        return { after: Math.max(1, Math.round(share * (events - 2))), pause: Math.random() * 15 };
      });
      const told = JSON.stringify(moments);
      let kills = 0, done = 0;
      for (const { after, pause } of moments) {
        const { killed, events: seen } = await run(out, Math.max(1, after - done), pause);
        if (killed) kills++;
        done = Math.min(after, done + seen);
      }
      assert(kills >= 1, `no kill came in time: ${told}`);
      const rest = await run(out);
      assert(rest.events < events, `${rest.events} of ${events} things were done again: ${told}`);
      assertEquals(await leftBehind(out), await leftBehind(whole), told);

      // Once more: nothing is left to do, and nothing changes.
      const before = await Deno.readFile(`${out}/study.json`);
      const again = await run(out);
      assert(again.events < 10, `${again.events} events`);
      assertEquals(await Deno.readFile(`${out}/study.json`), before);
    }),
});
