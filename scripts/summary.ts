/**
 * Adds up the closing lines of `deno test` in a log, and prints them as `N passed, N failed, N skipped`.
 *
 * @module
 */
const log = await Deno.readTextFile(Deno.args[0]);
const total = { passed: 0, failed: 0, ignored: 0 };
let runs = 0;
for (const [line] of log.matchAll(/^(ok|FAILED) \| .*$/gm)) {
  runs++;
  for (const [, count, kind] of line.matchAll(/(\d+) (passed|failed|ignored)/g)) {
    total[kind as keyof typeof total] += Number(count);
  }
}
if (runs === 0) console.log("no closing line of deno test in the log: it did not run to its end");
console.log(`${total.passed} passed, ${total.failed} failed, ${total.ignored} skipped`);
if (runs === 0 || total.failed > 0) Deno.exit(1);
