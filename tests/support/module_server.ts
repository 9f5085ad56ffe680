/**
 * The module as its users meet it over http.
 *
 * @module
 */

const root = new URL("../../", import.meta.url);

/** A server of the published sources. */
export interface ModuleServer extends AsyncDisposable {
  /** `127.0.0.1:PORT`, as `--allow-import` takes it. */
  readonly host: string;
  /** The module's address. */
  readonly module: string;
}

/**
 * Serves `mod.ts` and `src/`, and nothing else of the repository, as a static file host does.
 *
 * @param type The files' MIME type; code hosts say `text/plain` of raw files.
 */
export function serveModule(type: string): ModuleServer {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, async ({ url }) => {
    const { pathname } = new URL(url);
    if (!/^\/(mod|src\/[\w/.]+)\.ts$/.test(pathname)) return new Response("not found", { status: 404 });
    try {
      const file = await Deno.readFile(new URL(`.${pathname}`, root));
      return new Response(file, { headers: { "content-type": type } });
    } catch {
      return new Response("not found", { status: 404 });
    }
  });
  const host = `127.0.0.1:${server.addr.port}`;
  return { host, module: `http://${host}/mod.ts`, [Symbol.asyncDispose]: () => server.shutdown() };
}
