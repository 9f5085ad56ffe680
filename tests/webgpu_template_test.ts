/** Variants of kernels from one source. */
import { assertEquals, assertThrows } from "@std/assert";
import { expand } from "../src/backend/webgpu/template.ts";
import { WhetError } from "../src/errors.ts";

const write = (source: string, constants = {}, others = {}) =>
  expand({ kernel: source, ...others }, "kernel", constants).trim().split(/\s*\n\s*/).filter(Boolean);

Deno.test("conditional lines belong to the variants that ask for them", () => {
  const source = "//#if A\na\n//#if !B\nnot b\n//#end\n//#else\nb\n//#end\nc";
  assertEquals(write(source, { A: true }), ["a", "not b", "c"]);
  assertEquals(write(source, { A: 1, B: 1 }), ["a", "c"]);
  assertEquals(write(source, { A: 0 }), ["b", "c"]);
  assertEquals(write(source), ["b", "c"]);
});

Deno.test("loops are written out, within loops and up to constants", () => {
  const source = "  //#for i in 0..N\n  //#for j in 1..3\n  x$i$j;\n  //#end\n  //#end";
  assertEquals(write(source, { N: 2 }), ["x01;", "x02;", "x11;", "x12;"]);
  assertEquals(write(source, { N: 0 }), []);
});

Deno.test("files are imported once, by names that may be constants", () => {
  const others = { weight_q8: "//#import common\nq8", common: "common" };
  assertEquals(write("//#import weight_$F\n//#import common\nmain", { F: "q8" }, others), [
    "common",
    "q8",
    "main",
  ]);
});

Deno.test("constants are replaced everywhere but in comments", () => {
  assertEquals(write("// $A is a\nlet a = u32($A); // $A", { A: 7 }), ["// $A is a", "let a = u32(7); // 7"]);
});

Deno.test("a broken source is an error that names its file", () => {
  for (
    const source of [
      "let a = $A;",
      "//#import nothing",
      "//#if A",
      "//#else",
      "//#end",
      "//#for i in 0-3\n//#end",
      "//#unroll",
    ]
  ) {
    const error = assertThrows(() => write(source), WhetError);
    assertEquals([error.code, error.message.includes("kernels/")], ["backend", true], source);
  }
});
