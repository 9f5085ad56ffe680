/**
 * Part of `deno task check`: what would break a release unseen. The version is the same in deno.json and
 * in the code; the lock file names packages, not the address of a mirror that someone happened to use; the
 * library imports only what can be imported from anywhere: its own files, `node:` modules and pinned
 * `npm:` packages, for a module loaded from an address has no import map.
 *
 * @module
 */
import { VERSION } from "../src/version.ts";

const root = new URL("../", import.meta.url);

/** An import as `deno info --json` lists it. */
interface Dependency {
  specifier: string;
  code?: unknown;
}

function* problems(): Generator<string> {
  const { version } = JSON.parse(Deno.readTextFileSync(new URL("deno.json", root)));
  if (version !== VERSION) yield `deno.json says version ${version}, src/version.ts ${VERSION}`;

  const address = Deno.readTextFileSync(new URL("deno.lock", root)).match(/\w+:\/\/[^"]*/);
  if (address) yield `deno.lock names ${address[0]}: make it anew without a mirror`;

  const { stdout, success } = new Deno.Command(Deno.execPath(), {
    args: ["info", "--json", "mod.ts"],
    cwd: root,
    stderr: "inherit",
  }).outputSync();
  if (!success) return yield "deno info mod.ts failed";
  const { modules } = JSON.parse(new TextDecoder().decode(stdout));
  for (const { specifier: file, dependencies = [] } of modules) {
    if (!file.startsWith(root.href)) continue;
    for (const { specifier, code } of dependencies as Dependency[]) {
      if (!code || /^(\.\.?\/|node:|npm:(@[\w-]+\/)?[\w-]+@\d+\.\d+\.\d+(\/|$))/.test(specifier)) continue;
      yield `${
        file.slice(root.href.length)
      } imports ${specifier}: expected a relative path, node: or npm:NAME@X.Y.Z`;
    }
  }
}

if (import.meta.main) {
  const found = [...problems()];
  for (const problem of found) console.error(problem);
  if (found.length > 0) Deno.exit(1);
}
