/**
 * What huggingface_hub's environment variables say: where the cache lies, which Hub, which token.
 *
 * A variable that may not be read (no `--allow-env`) counts as unset; nothing here ever prompts.
 * Names and precedence are those of huggingface_hub's `constants.py` and `utils/_auth.py`.
 *
 * @module
 */

import { join } from "node:path";
import { WhetError } from "../errors.ts";

/** The Hub, unless `HF_ENDPOINT` names another. */
export const HUB = "https://huggingface.co";

/** The variable's value; undefined if it is unset, empty, or not to be read without a prompt. */
function env(variable: string): string | undefined {
  if (Deno.permissions.querySync({ name: "env", variable }).state !== "granted") return undefined;
  return Deno.env.get(variable) || undefined;
}

function isTrue(value: string | undefined): boolean {
  return /^(1|on|yes|true)$/i.test(value ?? "");
}

function home(): string | undefined {
  return env(Deno.build.os === "windows" ? "USERPROFILE" : "HOME");
}

/** `~`, `$NAME` and `${NAME}` replaced, as huggingface_hub does in its paths. */
function expand(path: string): string {
  return path
    .replace(/^~(?=$|[\\/])/, (tilde) => home() ?? tilde)
    .replace(/\$(?:(\w+)|\{(\w+)\})/g, (all, bare, braced) => env(bare ?? braced) ?? all);
}

/** `HF_HOME`, or where it lies by default; undefined if no variable says. */
function hubHome(): string | undefined {
  const own = env("HF_HOME");
  if (own) return expand(own);
  const caches = env("XDG_CACHE_HOME") ?? (home() && join(home()!, ".cache"));
  return caches && join(expand(caches), "huggingface");
}

/**
 * The directory of the Hub's cache: `HF_HUB_CACHE`, `HF_HOME/hub`, `XDG_CACHE_HOME/huggingface/hub`
 * or `~/.cache/huggingface/hub`, the first that is set.
 *
 * @param given A directory that overrides them all; `~` is the home directory.
 * @throws {WhetError} `resource`: none of the variables can be read.
 */
export function hubCacheDir(given?: string): string {
  const own = given || env("HF_HUB_CACHE") || env("HUGGINGFACE_HUB_CACHE");
  if (own) return expand(own);
  const base = hubHome();
  if (base) return join(base, "hub");
  throw new WhetError(
    "resource",
    "the Hub's cache: no home directory to be found: run with --allow-env=HOME,HF_HOME or set HF_HOME",
  );
}

/** The Hub's address without a slash at its end: `HF_ENDPOINT`, else https://huggingface.co. */
export function hubEndpoint(given?: string): string {
  const endpoint = (given || env("HF_ENDPOINT") || HUB).replace(/\/+$/, "");
  if (!/^https?:$/.test(URL.parse(endpoint)?.protocol ?? "")) {
    throw new WhetError("option", `HF_ENDPOINT: expected an http(s) address, got "${endpoint}"`);
  }
  return endpoint;
}

/** Whether `HF_HUB_OFFLINE` (or transformers' own variable) forbids the network. */
export function hubOffline(): boolean {
  return isTrue(env("HF_HUB_OFFLINE") ?? env("TRANSFORMERS_OFFLINE"));
}

/**
 * The token to show to the Hub: `HF_TOKEN`, else the file at `HF_TOKEN_PATH` or `HF_HOME/token` that
 * `hf auth login` writes; undefined if there is none that may be read.
 *
 * @param given A token that overrides them; the empty string means none.
 */
export function hubToken(given?: string): string | undefined {
  const token = (given ?? implicitToken())?.replace(/[\r\n]/g, "").trim() || undefined;
  if (token && !/^[\x21-\x7e]+$/.test(token)) {
    throw new WhetError("option", "HF_TOKEN: a token holds visible ASCII characters only: copy it anew");
  }
  return token;
}

function implicitToken(): string | undefined {
  if (isTrue(env("HF_HUB_DISABLE_IMPLICIT_TOKEN"))) return undefined;
  const own = env("HF_TOKEN") ?? env("HUGGING_FACE_HUB_TOKEN");
  if (own) return own;
  const base = hubHome();
  const path = env("HF_TOKEN_PATH") ?? (base && join(base, "token"));
  if (!path) return undefined;
  if (Deno.permissions.querySync({ name: "read", path: expand(path) }).state !== "granted") return undefined;
  try {
    return Deno.readTextFileSync(expand(path));
  } catch {
    return undefined; // Nobody logged in here.
  }
}
