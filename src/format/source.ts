/**
 * Where a model's files come from: a directory, a folder on a web server, or the Hugging Face Hub,
 * all behind one small interface that never needs a whole file in memory.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import type { Repository, SourceOptions } from "./repository.ts";
import { LocalRepository } from "./source_local.ts";
import { HttpRepository } from "./source_http.ts";

export {
  type ByteSource,
  type Progress,
  type Repository,
  type SourceOptions,
  TEXT_LIMIT,
} from "./repository.ts";

const HUB_ID = /^(?:[A-Za-z0-9][\w.-]{0,95}\/)?[A-Za-z0-9_][\w.-]{0,95}(?:@[\w./-]{1,250})?$/;

/**
 * Opens the folder that a source names.
 *
 * @param source A directory (a path or a `file:` URL), an `http(s)` URL of a folder, or else a Hub id
 * (`owner/name`, or `name` alone, either with `@revision`). A directory that exists is taken before a Hub id of the same name.
 * @param options Progress, abort signal, a stand-in for `fetch`.
 * @returns The repository.
 * @throws {WhetError} `option`, if there is no such place; `network` or `resource`, if it is out of reach.
 *
 * @example
 * ```ts
 * import { openRepository } from "./source.ts";
 *
 * const directory = await Deno.makeTempDir();
 * await Deno.writeTextFile(`${directory}/config.json`, "{}");
 * const repository = await openRepository(directory);
 * console.log(await repository.text("config.json")); // {}
 * await Deno.remove(directory, { recursive: true });
 * ```
 */
export async function openRepository(source: string, options: SourceOptions = {}): Promise<Repository> {
  if (/^https?:/i.test(source)) {
    const id = hubPage(source);
    return id ? await openHub(id, options) : new HttpRepository(source, options);
  }
  const directory = /^file:/i.test(source) ? fromFileUrl(source) : source;
  if (directory === "") throw new WhetError("option", "an empty source: give a directory, a URL or a Hub id");
  const local = await LocalRepository.open(directory, options);
  if (local) return local;
  if (directory === source && HUB_ID.test(source) && !source.includes("..") && !source.includes("--")) {
    return await openHub(source, options);
  }
  throw new WhetError(
    "option",
    `${source}: there is no such directory, and it has not the form of a Hub id (owner/name); check the path`,
  );
}

async function openHub(id: string, options: SourceOptions): Promise<Repository> {
  const { resolveHub } = await import("./hub.ts");
  let directory: string;
  try {
    directory = await resolveHub(id, options);
  } catch (error) {
    if (!(error instanceof WhetError)) throw error;
    throw new WhetError(
      error.code,
      `${id}: there is no such directory here, and as a Hub id: ${error.message}`,
      {
        cause: error,
      },
    );
  }
  const local = await LocalRepository.open(directory, options, id);
  if (!local) {
    throw new WhetError("resource", `${id}: its folder ${directory} in the Hub cache is gone; try again`);
  }
  return local;
}

/** The Hub id that a model's page stands for, when a user copied the page's address. */
function hubPage(source: string): string | null {
  const url = URL.canParse(source) ? new URL(source) : null;
  if (url?.hostname !== "huggingface.co" && url?.hostname !== "hf.co") return null;
  const id = url.pathname.replace(/\/(?:tree\/main)?\/?$/, "").slice(1);
  return id.includes("/") && HUB_ID.test(id) ? id : null;
}

function fromFileUrl(source: string): string {
  try {
    const path = decodeURIComponent(new URL(source).pathname);
    return Deno.build.os === "windows" ? path.replace(/^\/(?=[A-Za-z]:)/, "") : path;
  } catch (error) {
    throw new WhetError("option", `${source}: not a valid file: URL; expected file:///directory`, {
      cause: error,
    });
  }
}
