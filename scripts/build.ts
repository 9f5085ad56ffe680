/**
 * `deno task build`: compiles `wasm/` (AssemblyScript) and embeds the modules, `kernels/` (WGSL), the sources of both
 * backends' workers, and the server's page, as constants in TypeScript, so that the library needs no file of its own when
 * it runs. With `--check` nothing is written: exit status 1 names each embedded file that is out of step with its sources.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { stripTypeScriptTypes } from "node:module";
import asc from "npm:assemblyscript@0.28.20/asc";

const root = new URL("../", import.meta.url);

/** The builds of `wasm/`: one for every engine with SIMD, one for those with relaxed SIMD too. */
const VARIANTS = {
  strict: [],
  relaxed: ["--enable", "relaxed-simd"],
};

/** Compiles `wasm/index.ts`; returns the module and the TypeScript declarations of its exports. */
async function compile(flags: string[]): Promise<{ module: Uint8Array; declarations: string }> {
  const written = new Map<string, string | Uint8Array>();
  // V8 checks an access beyond the memory's declared minimum twice: 16 pages spare that (40 → 44 GFLOP/s).
  const memory = ["--importMemory", "--initialMemory", "16", "--maximumMemory", "65536"];
  const { error, stderr } = await asc.main([
    "index.ts",
    ...["--outFile", "kernels.wasm", "--bindings", "raw"],
    // 112: functions that pass vectors are exported between the sources only.
    ...["--enable", "simd", "--disableWarning", "112"],
    ...["-O3", "--noAssert", "--runtime", "stub"],
    ...memory,
    ...flags,
  ], {
    readFile(name: string) {
      try {
        return Deno.readTextFileSync(new URL(`wasm/${name}`, root));
      } catch {
        return null; // asc tries several names for one import
      }
    },
    writeFile: (name: string, contents: string | Uint8Array) => void written.set(name, contents),
    listFiles: () => [],
  });
  const notes = stderr.toString().trim();
  if (notes) console.error(notes);
  if (error) throw error;
  return {
    module: written.get("kernels.wasm") as Uint8Array,
    declarations: written.get("kernels.d.ts") as string,
  };
}

/** Declarations as asc writes them, their comments beginning `file/function`, as the members of an interface. */
function members(declarations: string): string[] {
  const pattern = /\/\*\*\n +\* (\w+)\/\w+\n[^/]*\*\/\n *export function (\w+\(.*\): \w+;)$/gm;
  return [...declarations.matchAll(pattern)]
    .map(([, file, signature]) => ({ file, signature }))
    .sort((a, b) => a.signature < b.signature ? -1 : 1)
    .flatMap(({ file, signature }) => [`/** In \`wasm/${file}.ts\`. */`, signature]);
}

/** The parameters' names of the members of an interface. */
function parameters(members: string[]): string[] {
  return members.flatMap((line) => {
    const [, name, list] = /^(\w+)\((.*)\):/.exec(line) ?? [];
    return name
      ? [`${name}: ${JSON.stringify(list.split(", ").map((one) => one.split(":")[0]).join(" "))},`]
      : [];
  });
}

async function wasmConstants(): Promise<string> {
  const lines = [
    "// Written by `deno task build` out of wasm/; do not edit.",
    "// deno-lint-ignore-file",
    "/** The WebAssembly modules, compiled out of `wasm/`. @module */",
  ];
  let signatures: string[] = [];
  for (const [name, flags] of Object.entries(VARIANTS)) {
    const { module, declarations } = await compile(flags);
    signatures = members(declarations);
    lines.push("", `/** The ${name} module, in base64. */`);
    lines.push(`export const ${name.toUpperCase()}: string =`);
    lines.push(`  "${Buffer.from(module).toString("base64")}";`);
  }
  lines.push("", "/** What both modules export; pointers and sizes are unsigned 32-bit numbers. */");
  lines.push("export interface Kernels {", ...signatures.map((line) => `  ${line}`), "}");
  lines.push("", "/** The names of their parameters. */");
  lines.push("export const PARAMETERS: Record<keyof Kernels, string> = {");
  lines.push(...parameters(signatures).map((line) => `  ${line}`), "};", "");
  return lines.join("\n");
}

/** `tiles.ts` as the plain JavaScript of a worker. */
function workerConstants(): string {
  const source = Deno.readTextFileSync(new URL("src/backend/wasm/tiles.ts", root));
  const plain = stripTypeScriptTypes(source)
    .replaceAll(/\/\*[^]*?\*\/|\/\/.*$|^export /gm, "")
    .split("\n").map((line) => line.trim()).filter(Boolean).join("\n");
  const code = `${plain}\nonmessage = ({ data }) => {\nserve(data);\nclose();\n};\n`;
  return [
    "// Written by `deno task build` out of src/backend/wasm/tiles.ts; do not edit.",
    "/** What a worker of the WebAssembly backend runs. @module */",
    "",
    "/** The worker's source. */",
    `export const WORKER: string = ${JSON.stringify(code)};`,
    "",
  ].join("\n");
}

/**
 * `src/backend/webgpu/worker.ts` and all that it imports as one file of plain JavaScript, but for the WGSL sources: they
 * are embedded once already.
 */
async function gpuWorkerConstants(): Promise<string> {
  const path = await Deno.makeTempFile({ suffix: ".js" });
  try {
    const { success, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        ...["bundle", "--quiet", "--frozen", "--minify", "--external", "*/kernels.gen.ts"],
        ...["--output", path, "src/backend/webgpu/worker.ts"],
      ],
      cwd: root,
    }).output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
    const bundle = await Deno.readTextFile(path);
    const code = "const SOURCES={};" +
      bundle.replaceAll(
        /import\s*\{WGSL as (\w+)\}\s*from\s*"[^"]*\/kernels\.gen\.ts";?/g,
        "const $1=SOURCES;",
      );
    if (/kernels\.gen/.test(code) || code.length > bundle.length + 100) {
      throw new Error("src/backend/webgpu/worker.ts: WGSL is imported in another way than expected");
    }
    return [
      "// Written by `deno task build` out of src/backend/webgpu/worker.ts; do not edit.",
      "/** What the worker of a WebGPU backend runs. @module */",
      "",
      "/** The worker's source. */",
      `export const WORKER: string = ${JSON.stringify(code.trim())};`,
      "",
    ].join("\n");
  } finally {
    await Deno.remove(path);
  }
}

function wgslConstants(): string {
  const names = [...Deno.readDirSync(new URL("kernels/", root))]
    .map((entry) => entry.name).filter((name) => name.endsWith(".wgsl")).sort();
  const lines = [
    "// Written by `deno task build` out of kernels/; do not edit.",
    "// deno-lint-ignore-file",
    "/** The WGSL sources of `kernels/`, by file name. @module */",
    "",
    "/** The WGSL sources. */",
    "export const WGSL = {",
  ];
  for (const name of names) {
    const source = Deno.readTextFileSync(new URL(`kernels/${name}`, root));
    lines.push(`  ${JSON.stringify(name.slice(0, -".wgsl".length))}: ${JSON.stringify(source)},`);
  }
  lines.push("} as const;", "");
  return lines.join("\n");
}

/** `src/serve/page/` as one HTML text, without indentation and comments. */
function pageConstants(): string {
  const read = (name: string) => Deno.readTextFileSync(new URL(`src/serve/page/${name}`, root));
  const plain = (text: string) =>
    text.split("\n").map((line) => line.trim()).filter((line) => line && !/^(\/\/|\/\*\*.*\*\/$)/.test(line))
      .join("\n");
  const script = plain(read("page.js"));
  if (script.includes("</script")) throw new Error("src/serve/page/page.js: it would end its own element");
  const page = plain(read("page.html"))
    .replace('<link rel="stylesheet" href="page.css">', () => `<style>\n${plain(read("page.css"))}\n</style>`)
    .replace(
      '<script type="module" src="page.js"></script>',
      () => `<script type="module">\n${script}\n</script>`,
    );
  if (page.includes("page.css") || page.includes("page.js")) {
    throw new Error("src/serve/page/page.html: its style or script is named in another way than expected");
  }
  return [
    "// Written by `deno task build` out of src/serve/page/; do not edit.",
    "/** The page at `/`. @module */",
    "",
    "/** The page, with its style and script in it. */",
    `export const PAGE: string = ${JSON.stringify(page + "\n")};`,
    "",
  ].join("\n");
}

function current(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(new URL(path, root));
  } catch {
    return undefined;
  }
}

if (import.meta.main) {
  const check = Deno.args.includes("--check");
  const outputs = {
    "src/backend/wasm/kernels.gen.ts": await wasmConstants(),
    "src/backend/wasm/worker.gen.ts": workerConstants(),
    "src/backend/webgpu/kernels.gen.ts": wgslConstants(),
    "src/backend/webgpu/worker.gen.ts": await gpuWorkerConstants(),
    "src/serve/page.gen.ts": pageConstants(),
  };
  let stale = 0;
  for (const [path, text] of Object.entries(outputs)) {
    if (current(path) === text) continue;
    stale++;
    if (check) {
      console.error(`${path} is out of step with its sources: run \`deno task build\` and commit it`);
    } else {
      Deno.mkdirSync(new URL("./", new URL(path, root)), { recursive: true });
      Deno.writeTextFileSync(new URL(path, root), text);
      console.error(`${path}: ${text.length} characters`);
    }
  }
  if (check && stale > 0) Deno.exit(1);
}
