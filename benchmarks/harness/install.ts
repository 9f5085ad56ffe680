/**
 * Installs node-llama-cpp in a folder of its own, with npm.
 *
 * The other peers are `npm:` imports. This one's list of optional packages, one for each platform, has one that the
 * registry does not have in that version (linux-riscv64 in 3.22.1), which Deno takes for an error where npm goes on;
 * and with all of them npm brings 700 MB of CUDA and Vulkan. When `deno install` passes over optional packages that are
 * missing, and `npm:` imports leave unwanted ones out, this file can go.
 *
 * @module
 */
import { PACKAGES } from "../peers/packages.ts";

/** The package of native code for this machine. */
const NATIVE: Record<string, string> = {
  "linux-x86_64": "linux-x64",
  "linux-aarch64": "linux-arm64",
  "darwin-x86_64": "mac-x64",
  "darwin-aarch64": "mac-arm64-metal",
  "windows-x86_64": "win-x64",
  "windows-aarch64": "win-arm64",
};

let installed: Promise<string> | null = null;

/**
 * Installs it, if it is not there yet.
 *
 * @param note Takes a line about it.
 * @returns The URL of the folder with its `node_modules`.
 * @throws {Error} Where there is no npm, or it fails.
 */
export function installLlamaCpp(note: (line: string) => void): Promise<string> {
  return installed ??= install(note);
}

async function install(note: (line: string) => void): Promise<string> {
  const name = "node-llama-cpp", version = PACKAGES[name];
  const native = NATIVE[`${Deno.build.os}-${Deno.build.arch}`];
  if (!native) throw new Error(`${name} has no native code for ${Deno.build.os}`);
  const folder = `${cacheFolder()}/${name}-${version}`;
  const url = new URL(`file://${folder}/`).href;
  const done = await Deno.stat(`${folder}/node_modules/${name}/package.json`).catch(() => null);
  if (done) return url;
  note(`  installing ${name} ${version}`);
  // Installed beside its place, so that what is there is whole.
  await Deno.mkdir(cacheFolder(), { recursive: true });
  const place = await Deno.makeTempDir({ dir: cacheFolder() });
  const dependencies = { [name]: version, [`@node-llama-cpp/${native}`]: version };
  await Deno.writeTextFile(`${place}/package.json`, JSON.stringify({ private: true, dependencies }));
  const { success, stderr } = await new Deno.Command(Deno.build.os === "windows" ? "npm.cmd" : "npm", {
    args: ["install", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund"],
    cwd: place,
    stdout: "null",
    stderr: "piped",
  }).output().catch(() => {
    throw new Error(`${name} is installed with npm, which is not there`);
  });
  if (!success) {
    await Deno.remove(place, { recursive: true });
    const said = new TextDecoder().decode(stderr).split("\n").find((line) => /error/i.test(line));
    throw new Error(`${name} could not be installed: ${said}`);
  }
  await Deno.remove(folder, { recursive: true }).catch(() => {});
  await Deno.rename(place, folder);
  return url;
}

function cacheFolder(): string {
  const variable = (name: string) => Deno.env.get(name);
  const cache = variable("XDG_CACHE_HOME") ?? variable("LOCALAPPDATA") ??
    `${variable("HOME") ?? Deno.makeTempDirSync()}/.cache`;
  return `${cache}/whet-bench`;
}
