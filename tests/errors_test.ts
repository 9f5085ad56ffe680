import { assert, assertEquals } from "@std/assert";
import { WhetError } from "../src/errors.ts";

Deno.test("a WhetError carries a message for people and a code for programs", () => {
  const error = new WhetError("format", "config.json: n_head is missing", { cause: "x" });
  assert(error instanceof Error);
  assertEquals([error.name, error.code, error.message], [
    "WhetError",
    "format",
    "config.json: n_head is missing",
  ]);
});
