/**
 * What was found out about an adapter, kept for the processes to come: a small file each in the user's cache directory.
 * Where there is no such directory, or no permission, nothing is kept; nothing here prompts or fails, for all of it can
 * be found out again.
 *
 * @module
 */
import { ensureDirectory, join, writeAtomically } from "../../format/files.ts";

/**
 * What was kept under a name.
 *
 * @param name The name.
 * @returns What {@linkcode keep} was given, or what somebody else wrote there: it is to be checked; undefined for nothing.
 */
export async function recall(name: string): Promise<unknown> {
  const directory = placeOf("read");
  if (!directory) return undefined;
  try {
    const kept = JSON.parse(await Deno.readTextFile(join(directory, fileOf(name))));
    return kept.name === name ? kept.value : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Keeps something for later processes, if it can.
 *
 * @param name Under which name.
 * @param value What, as JSON has it.
 */
export async function keep(name: string, value: unknown): Promise<void> {
  const directory = placeOf("read", "write");
  if (!directory) return;
  try {
    await ensureDirectory(directory);
    await writeAtomically(join(directory, fileOf(name)), JSON.stringify({ name, value }) + "\n");
  } catch {
    // A full disk, a directory of somebody else's.
  }
}

/** Names that differ late, or in signs alone, share a file, and take it from each other. */
function fileOf(name: string): string {
  return `${name.replaceAll(/[^\w.]+/g, "-").slice(0, 150)}.json`;
}

/** The directory, where all of that may be done there without asking. */
function placeOf(...rights: ("read" | "write")[]): string | undefined {
  if (!globalThis.Deno?.permissions) return undefined; // another runtime
  const caches = cacheDirectory();
  const path = caches && join(caches, "whet");
  return path && rights.every((name) => isGranted({ name, path })) ? path : undefined;
}

/** The user's, as far as it may be known. */
function cacheDirectory(): string | undefined {
  const given = variable("XDG_CACHE_HOME");
  if (given) return given;
  if (Deno.build.os === "windows") return variable("LOCALAPPDATA");
  const home = variable("HOME");
  return home && join(home, Deno.build.os === "darwin" ? "Library/Caches" : ".cache");
}

function variable(variable: string): string | undefined {
  return isGranted({ name: "env", variable }) ? Deno.env.get(variable) || undefined : undefined;
}

function isGranted(what: Deno.PermissionDescriptor): boolean {
  return Deno.permissions.querySync(what).state === "granted";
}
