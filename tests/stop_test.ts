import { assert, assertEquals } from "@std/assert";
import { StopFilter } from "../src/generate/stop.ts";

/** What is shown of a text that comes in pieces, and whether it was stopped. */
function filter(stops: readonly string[], pieces: readonly string[]): { shown: string[]; stopped: boolean } {
  const stop = new StopFilter(stops);
  const shown: string[] = [];
  for (const piece of pieces) {
    const { text, stopped } = stop.push(piece);
    shown.push(text);
    if (stopped) return { shown, stopped };
  }
  return { shown: [...shown, stop.flush()], stopped: false };
}

Deno.test("without stop strings all text passes at once", () => {
  assertEquals(filter([], ["a", "", "b\n"]), { shown: ["a", "", "b\n", ""], stopped: false });
});

Deno.test("a stop string ends the text before it, within a piece, at its edge, across several", () => {
  assertEquals(filter(["\n\nHuman:"], ["Hi!\n\nHuman: more"]), { shown: ["Hi!"], stopped: true });
  assertEquals(filter(["END"], ["xEND"]), { shown: ["x"], stopped: true });
  assertEquals(filter(["\n\nHuman:"], ["Hi!\n", "\n", "Hum", "an", ":"]), {
    shown: ["Hi!", "", "", "", ""],
    stopped: true,
  });
});

Deno.test("what only looked like the beginning of a stop string is shown as soon as that is known", () => {
  assertEquals(filter(["\n\nHuman:"], ["a\n", "\nHu", "go", "\n"]).shown, ["a", "", "\n\nHugo", "", "\n"]);
  assertEquals(filter(["aab"], ["a", "a", "a", "a", "b"]).shown, ["", "", "a", "a", ""]);
});

Deno.test("of overlapping stop strings the one that is complete first counts, and of those the longest", () => {
  assertEquals(filter(["bcd", "abcde"], ["xabcde"]), { shown: ["xa"], stopped: true });
  assertEquals(filter(["bc", "abc"], ["xabc"]), { shown: ["x"], stopped: true });
  assertEquals(filter(["abc", "b"], ["abc"]), { shown: ["a"], stopped: true });
});

Deno.test("the text that is shown does not depend on how it comes in pieces, and never holds a stop string", () => {
  let x = 1;
  const random = (below: number) => (x = (x * 48271) % 2147483647) % below;
  const word = (length: number) => Array.from({ length }, () => "ab"[random(2)]).join("");
  let stoppedCount = 0;
  for (let trial = 0; trial < 3000; trial++) {
    const stops = Array.from({ length: 1 + random(3) }, () => word(1 + random(5)));
    const text = word(random(14));
    const pieces: string[] = [];
    for (let at = 0; at < text.length;) {
      const end = at + random(4);
      pieces.push(text.slice(at, end));
      at = end;
    }
    // The plain way: letter by letter, until the text so far ends in a stop string.
    let expected = text, stopped = false;
    for (let end = 1; end <= text.length && !stopped; end++) {
      const found = stops.filter((stop) => text.slice(0, end).endsWith(stop));
      if (found.length === 0) continue;
      stopped = true;
      expected = text.slice(0, end - Math.max(...found.map(({ length }) => length)));
    }
    const actual = filter(stops, pieces);
    assertEquals({ ...actual, shown: actual.shown.join("") }, { shown: expected, stopped });
    assert(!stops.some((stop) => actual.shown.join("").includes(stop)));
    stoppedCount += Number(stopped);
  }
  assert(stoppedCount > 500 && stoppedCount < 2900);
});
