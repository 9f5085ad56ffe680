/**
 * Adds up what `.ci/run` ran, and prints it as `N passed, N failed, N skipped`: each test of the README's test
 * command, and `deno task check` as one more. Exit status 1 if anything failed.
 *
 * Arguments: the tests' log, the exit status of the check, the exit status of the tests.
 *
 * @module
 */
const [file, check, tests] = Deno.args;
const total = { passed: 0, failed: 0, ignored: 0 };
// deno-lint-ignore no-control-regex -- colours
const log = (await Deno.readTextFile(file)).replaceAll(/\x1b\[[\d;]*m/g, "");
for (const [line] of log.matchAll(/^(ok|FAILED) \| .*$/gm)) {
  for (const [, count, kind] of line.matchAll(/(\d+) (passed|failed|ignored)/g)) {
    total[kind as keyof typeof total] += Number(count);
  }
}
if (tests !== "0" && total.failed === 0) {
  console.log(`the tests did not run to their end: exit status ${tests}`);
  total.failed++;
}
if (total.passed === 0 && total.failed === 0) {
  console.log("no test has run");
  total.failed++;
}
if (check !== "0") console.log(`deno task check failed: exit status ${check}`);
total[check === "0" ? "passed" : "failed"]++;
console.log(`${total.passed} passed, ${total.failed} failed, ${total.ignored} skipped`);
if (total.failed > 0) Deno.exit(1);
