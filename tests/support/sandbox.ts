/**
 * A directory of its own for a Deno of its own: nothing cached and no package registry to be reached, unless packages
 * are asked for, and no permission but what its flags give.
 *
 * @module
 */

/** What a finished process left. */
export interface Finished {
  /** Its exit status. */
  code: number;
  /** What it printed. */
  stdout: string;
  /** What it said beside that. */
  stderr: string;
}

/** A function that `deno serve` runs. */
export interface Served extends AsyncDisposable {
  /** `http://127.0.0.1:PORT/`. */
  readonly url: string;
}

/** No process of these tests takes longer, in milliseconds; one that hangs is ended. */
const PATIENCE = 60_000;

/** Removed with all that is in it when disposed. */
export class Sandbox implements AsyncDisposable {
  /** Where it is. */
  readonly directory: string = Deno.makeTempDirSync({ prefix: "whet-sandbox-" });
  readonly #ending: Promise<void>[] = [];

  /** @param options `packages`: npm packages that this machine's Deno has are there, too. */
  constructor(private readonly options: { packages?: boolean } = {}) {}

  /** Writes a file; gives its path. */
  write(name: string, text: string): string {
    const path = `${this.directory}/${name}`;
    Deno.writeTextFileSync(path, text);
    return path;
  }

  /** Runs `deno` in the directory to its end. */
  async run(...args: string[]): Promise<Finished> {
    const { code, stdout, stderr } = await this.#command(args, AbortSignal.timeout(PATIENCE)).output();
    const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
    return { code, stdout: out, stderr: err };
  }

  /** Runs `deno serve` on a free port, with no permission at all, until disposed. */
  async serve(...args: string[]): Promise<Served> {
    const flags = ["--no-prompt", "--host", "127.0.0.1", "--port", "0"];
    const child = this.#command(["serve", ...flags, ...args], AbortSignal.timeout(PATIENCE)).spawn();
    let said = "";
    const url = await new Promise<string | null>((resolve) => {
      const listen = async () => {
        // To its end: who no longer reads would stop a process that writes.
        for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
          said += text;
          const [address] = said.match(/(?<=Listening on )http:\S+/) ?? [];
          if (address) resolve(address);
        }
        resolve(null);
      };
      this.#ending.push(listen(), child.stdout.cancel());
    });
    const stop = async () => {
      try {
        child.kill("SIGKILL");
      } catch {
        // It has ended by itself.
      }
      await Promise.all([child.status, ...this.#ending.splice(0)]);
    };
    if (url) return { url, [Symbol.asyncDispose]: stop };
    await stop();
    throw new Error(`deno serve ended: ${said}`);
  }

  /** Removes the directory. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.directory, { recursive: true });
  }

  #command(args: string[], signal?: AbortSignal): Deno.Command {
    return new Deno.Command(Deno.execPath(), {
      args,
      signal,
      cwd: this.directory,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
      env: {
        DENO_NO_UPDATE_CHECK: "1",
        NO_COLOR: "1",
        ...(this.options.packages
          ? {}
          : { DENO_DIR: `${this.directory}/deno`, NPM_CONFIG_REGISTRY: "http://127.0.0.1:1" }),
      },
    });
  }
}
