/**
 * Variants of a kernel from one readable source. Lines that WGSL sees as comments are directives:
 *
 * - `//#import name`: another file of `kernels/`, once;
 * - `//#if NAME`, `//#if !NAME`, `//#else`, `//#end`: lines for some variants alone;
 * - `//#for i in 0..N` … `//#end`: lines written out once for each i, `$i` being its value (naga guards
 *   every loop, gfx-rs/wgpu#7698, so that inner loops are worth writing out);
 * - `$NAME` anywhere: a constant's value.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";

/** What distinguishes a variant; flags are on unless false, 0, empty or absent. */
export type Constants = Readonly<Record<string, string | number | boolean>>;

/** One directive or line of text, with what belongs to it. */
type Node =
  | { kind: "text"; text: string }
  | { kind: "import"; name: string }
  | { kind: "if"; flag: string; wanted: boolean; then: Node[]; otherwise: Node[] }
  | { kind: "for"; variable: string; from: string; to: string; body: Node[] };

/**
 * Writes out one variant of a kernel.
 *
 * @param sources The files of `kernels/` by name.
 * @param name Which of them.
 * @param constants What the variant is.
 * @returns WGSL.
 * @throws {WhetError} `backend` if a file, a constant or a directive's end is missing.
 */
export function expand(
  sources: Readonly<Record<string, string>>,
  name: string,
  constants: Constants,
): string {
  const imported = new Set<string>();

  const include = (file: string): string => {
    if (imported.has(file)) return "";
    imported.add(file);
    if (!Object.hasOwn(sources, file)) throw wrong(name, `there is no kernels/${file}.wgsl`);
    return write(parse(sources[file], file), constants, file);
  };

  const write = (nodes: readonly Node[], values: Constants, file: string): string =>
    nodes.map((node) => {
      switch (node.kind) {
        case "text":
          return substitute(node.text, values, file) + "\n";
        case "import":
          return include(substitute(node.name, values, file));
        case "if":
          return write(Boolean(values[node.flag]) === node.wanted ? node.then : node.otherwise, values, file);
        case "for": {
          const [from, to] = [node.from, node.to].map((bound) => Number(values[bound] ?? bound));
          const lines: string[] = [];
          for (let i = from; i < to; i++) {
            lines.push(write(node.body, { ...values, [node.variable]: i }, file));
          }
          return lines.join("");
        }
      }
    }).join("");

  return include(name);
}

function parse(source: string, file: string): Node[] {
  const root: Node[] = [];
  const open: Node[][] = [root];
  const blocks: Extract<Node, { kind: "if" | "for" }>[] = [];
  for (const line of source.split("\n")) {
    const [, directive, rest = ""] = line.match(/^\s*\/\/#(\w+)\s*(.*?)\s*$/) ?? [];
    const here = open.at(-1)!;
    if (directive === undefined) {
      here.push({ kind: "text", text: line });
    } else if (directive === "import") {
      here.push({ kind: "import", name: rest });
    } else if (directive === "if") {
      const block: Node = {
        kind: "if",
        flag: rest.replace("!", ""),
        wanted: !rest.startsWith("!"),
        then: [],
        otherwise: [],
      };
      here.push(block);
      blocks.push(block);
      open.push(block.then);
    } else if (directive === "for") {
      const bounds = rest.match(/^(\w+) in (\w+)\.\.(\w+)$/);
      if (!bounds) throw wrong(file, `//#for ${rest} is not of the form i in 0..N`);
      const block: Node = { kind: "for", variable: bounds[1], from: bounds[2], to: bounds[3], body: [] };
      here.push(block);
      blocks.push(block);
      open.push(block.body);
    } else if (directive === "else") {
      const block = blocks.at(-1);
      if (block?.kind !== "if") throw wrong(file, "//#else without //#if");
      open[open.length - 1] = block.otherwise;
    } else if (directive === "end") {
      if (!blocks.pop()) throw wrong(file, "//#end without a beginning");
      open.pop();
    } else {
      throw wrong(file, `//#${directive} means nothing`);
    }
  }
  if (blocks.length) throw wrong(file, `//#${blocks[0].kind} without //#end`);
  return root;
}

function substitute(text: string, values: Constants, file: string): string {
  if (text.trimStart().startsWith("//")) return text;
  return text.replace(/\$([A-Za-z]+)/g, (_, name: string) => {
    if (!Object.hasOwn(values, name)) throw wrong(file, `the constant ${name} is missing`);
    return String(values[name]);
  });
}

function wrong(file: string, what: string): WhetError {
  return new WhetError("backend", `kernels/${file}.wgsl: ${what}`);
}
