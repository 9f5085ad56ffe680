import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import { type HubOptions, isModelFile, resolveHub } from "../src/format/hub.ts";
import { gitSha1, type HubRepo, HubServer, sha256 } from "./support/hub_server.ts";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const CONFIG = new TextEncoder().encode('{"n_layer": 2}');
const WEIGHTS = pattern(50_000);

function pattern(length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, i) => (i * i + (i >> 5)) & 255);
}

function repo(changes: Partial<HubRepo> = {}): HubRepo {
  return {
    name: "owner/name",
    commit: COMMIT,
    files: {
      "config.json": CONFIG,
      "model.safetensors": WEIGHTS,
      "pytorch_model.bin": WEIGHTS,
      "onnx/deep/x.json": CONFIG,
    },
    lfs: ["model.safetensors", "pytorch_model.bin"],
    ...changes,
  };
}

/** Those of the tester must not show through. */
const VARIABLES = [
  ...["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE"],
  ...[
    "TRANSFORMERS_OFFLINE",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_TOKEN_PATH",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN",
  ],
];

/** A Hub, an empty cache, and `get`, which resolves with a short patience. */
class Scene implements AsyncDisposable {
  readonly server: HubServer;
  readonly cacheDir = Deno.makeTempDirSync({ prefix: "whet-hub-" });
  readonly notes: string[] = [];

  constructor(...repos: HubRepo[]) {
    this.server = new HubServer(repos.length ? repos : [repo()]);
  }

  get options(): HubOptions {
    return {
      endpoint: this.server.endpoint,
      cacheDir: this.cacheDir,
      token: "",
      offline: false,
      patience: { retries: 3, backoff: 1, stall: 5000, longestWait: 2000 },
      onNote: (note) => this.notes.push(note),
    };
  }

  get(options: HubOptions = {}, id = "owner/name"): Promise<string> {
    return resolveHub(id, { ...this.options, ...options });
  }

  /** The error that `get` ends with; checked to be one line that ends in advice. */
  async failure(options: HubOptions = {}, id = "owner/name"): Promise<WhetError> {
    const error = await assertRejects(() => this.get(options, id), WhetError);
    assert(!error.message.includes("\n") && error.message.includes(":"), error.message);
    return error;
  }

  path(name: string): string {
    return `${this.cacheDir}/models--owner--name/${name}`;
  }

  blobs(): string[] {
    try {
      return [...Deno.readDirSync(this.path("blobs"))].map(({ name }) => name).sort();
    } catch {
      return [];
    }
  }

  /** Stops the Hub; the cache stays. */
  async unplug(): Promise<void> {
    await this.server[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.unplug();
    await Deno.remove(this.cacheDir, { recursive: true });
  }
}

/** Runs a process that resolves an id, with the given permissions and variables. */
async function child(
  flags: string[],
  options: HubOptions,
  env: Record<string, string> = {},
  id = "owner/name",
): Promise<string> {
  const script = new URL("./support/hub_child.ts", import.meta.url).href;
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--no-check", "--quiet", ...flags, script, id, JSON.stringify(options)],
    env: { ...Object.fromEntries(VARIABLES.map((name) => [name, ""])), ...env, NO_COLOR: "1" },
  }).output();
  return new TextDecoder().decode(stdout).trim();
}

Deno.test("what is downloaded lies in huggingface_hub's cache layout", async () => {
  await using scene = new Scene();
  const directory = await scene.get({ files: () => true });
  assertEquals(directory, scene.path(`snapshots/${COMMIT}`));
  assertEquals(scene.blobs(), [gitSha1(CONFIG), sha256(WEIGHTS)].sort());
  assertEquals(Deno.readTextFileSync(scene.path("refs/main")), COMMIT);
  assertEquals(Deno.readFileSync(`${directory}/model.safetensors`), WEIGHTS);
  if (Deno.build.os !== "windows") {
    assertEquals(Deno.readLinkSync(`${directory}/model.safetensors`), `../../blobs/${sha256(WEIGHTS)}`);
    assertEquals(Deno.readLinkSync(`${directory}/onnx/deep/x.json`), `../../../../blobs/${gitSha1(CONFIG)}`);
  }
  const tree = JSON.parse(Deno.readTextFileSync(scene.path(`trees/${COMMIT}.json`)));
  assertEquals(tree.files["model.safetensors"], {
    size: WEIGHTS.length,
    blob_id: gitSha1(WEIGHTS),
    lfs_sha256: sha256(WEIGHTS),
    lfs_size: WEIGHTS.length,
  });
});

Deno.test("of a model only configuration, tokenizer and safetensors are taken unless told otherwise", async () => {
  await using scene = new Scene();
  const directory = await scene.get();
  assertEquals([...Deno.readDirSync(directory)].map(({ name }) => name).sort(), [
    "config.json",
    "model.safetensors",
  ]);
  for (
    const name of ["merges.txt", "spm.model", "adapter_model.safetensors", "model-00001-of-00002.safetensors"]
  ) {
    assert(isModelFile(name), name);
  }
  for (const name of ["model.fp16.safetensors", "tf_model.h5", "x/config.json", "README.md"]) {
    assert(!isModelFile(name), name);
  }
  const bin = "pytorch_model.bin", shard = "pytorch_model-00001-of-00002.bin";
  for (const name of [bin, shard]) {
    assert(isModelFile(name, ["config.json", "adapter_model.safetensors", "model.fp16.safetensors", name]));
    assert(!isModelFile(name, ["model.safetensors", name]));
    assert(!isModelFile(name, ["model-00002-of-00002.safetensors", name]));
  }
  for (const name of ["pytorch_model.fp16.bin", "x/pytorch_model.bin", "training_args.bin", "optimizer.pt"]) {
    assert(!isModelFile(name, [name]), name);
  }
});

Deno.test("PyTorch's weights are fetched where there are no others, and looked for in the cache", async () => {
  const files = { "config.json": CONFIG, "pytorch_model.bin": WEIGHTS, "training_args.bin": WEIGHTS };
  await using scene = new Scene(repo({ files, lfs: ["pytorch_model.bin"] }));
  const directory = await scene.get();
  assertEquals([...Deno.readDirSync(directory)].map(({ name }) => name).sort(), [
    "config.json",
    "pytorch_model.bin",
  ]);
  assertEquals(await scene.get({ offline: true }), directory);
  await Deno.remove(`${directory}/pytorch_model.bin`);
  assertMatch(
    (await scene.failure({ offline: true })).message,
    /file "pytorch_model\.bin" of owner\/name@main/,
  );
});

Deno.test("a file that is there is not fetched again; a commit that is there costs no request", async () => {
  await using scene = new Scene();
  const directory = await scene.get();
  scene.server.requests.length = 0;
  assertEquals(await scene.get(), directory);
  assertEquals(scene.server.requests.map(({ on }) => on), ["api"]);
  assertEquals(await scene.get({ revision: COMMIT }), directory);
  assertEquals(await scene.get({ files: ["config.json"] }, `owner/name@${COMMIT}`), directory);
  assertEquals(await scene.get({ offline: true }), directory);
  assertEquals(scene.server.requests.length, 1);
});

Deno.test("a new commit shares the blobs that did not change", async () => {
  await using scene = new Scene();
  await scene.get();
  const next = "f".repeat(40), config = pattern(10);
  scene.server.repos[0] = repo({
    commit: next,
    files: { "config.json": config, "model.safetensors": WEIGHTS },
  });
  scene.server.requests.length = 0;
  assertEquals(await scene.get(), scene.path(`snapshots/${next}`));
  assertEquals(scene.server.seen("cdn"), []);
  assertEquals(Deno.readTextFileSync(scene.path("refs/main")), next);
  assertEquals(Deno.readFileSync(scene.path(`snapshots/${next}/config.json`)), config);
  assertEquals(Deno.readFileSync(scene.path(`snapshots/${COMMIT}/config.json`)), CONFIG);
});

Deno.test("a dataset's files are found under its own addresses", async () => {
  const file = "helpful-base/train data.jsonl.gz";
  await using scene = new Scene(repo({ type: "dataset", files: { [file]: WEIGHTS }, lfs: [file] }));
  const directory = await scene.get({ repoType: "dataset", files: [file] });
  assertEquals(directory, `${scene.cacheDir}/datasets--owner--name/snapshots/${COMMIT}`);
  assertEquals(Deno.readFileSync(`${directory}/${file}`), WEIGHTS);
});

Deno.test("a repository that was renamed is found under its old name", async () => {
  await using scene = new Scene();
  scene.server.renamed["old"] = "owner/name";
  const directory = await scene.get({}, "old");
  assertEquals(directory, `${scene.cacheDir}/models--old/snapshots/${COMMIT}`);
  assertEquals(Deno.readFileSync(`${directory}/model.safetensors`), WEIGHTS);
});

Deno.test("progress goes from nothing to the whole of each file", async () => {
  await using scene = new Scene();
  const seen: [string, number, number][] = [];
  await scene.get({ onProgress: ({ file, loaded, total }) => seen.push([file, loaded, total]) });
  for (const [file, { length }] of [["config.json", CONFIG], ["model.safetensors", WEIGHTS]] as const) {
    const own = seen.filter(([name]) => name === file);
    assertEquals(own[0], [file, 0, length]);
    assertEquals(own.at(-1), [file, length, length]);
  }
});

Deno.test("the token goes to the Hub and never to the CDN", async () => {
  await using scene = new Scene(repo({ private: "hf_secret" }));
  await scene.get({ token: "hf_secret\n" });
  for (const { on, authorization } of scene.server.requests) {
    assertEquals(authorization, on === "cdn" ? null : "Bearer hf_secret", on);
  }
  assert(scene.server.seen("cdn").length > 0);
  const error = await scene.failure({ token: "kä se" });
  assertEquals(error.code, "option");
  assert(!error.message.includes("kä"));
});

Deno.test("a redirect from https to anything less is not followed", async () => {
  await using scene = new Scene();
  for (const location of ["http://hub.test/x", "file:///etc/passwd", "http://"]) {
    const asked: string[] = [];
    const fetch = (url: string | URL | Request) => {
      asked.push(String(url));
      return Promise.resolve(new Response(null, { status: 302, headers: { location } }));
    };
    const error = await scene.failure({ endpoint: "https://hub.test", fetch, token: "hf_secret" });
    assertMatch(error.message, /hub.test: redirects to what is not https: refused/);
    assertEquals(asked.length, 1);
  }
});

Deno.test("a line that is cut is taken up where it broke", async () => {
  await using scene = new Scene();
  scene.server.fail({ on: "cdn", cutAfter: 20_000, times: 2 });
  const directory = await scene.get();
  assertEquals(Deno.readFileSync(`${directory}/model.safetensors`), WEIGHTS);
  assertEquals(scene.server.seen("cdn").map(({ range }) => range), [null, "bytes=20000-", "bytes=40000-"]);
  assertMatch(scene.notes[0], /the line was cut .*; trying again in 1 s \(1 of 3\)/);
});

Deno.test("a download given up is taken up by the next call", async () => {
  await using scene = new Scene();
  scene.server.fail({ on: "cdn", cutAfter: 20_000 });
  const error = await scene.failure({ patience: { retries: 0 } });
  assertEquals(error.code, "network");
  assertEquals(scene.blobs(), [gitSha1(CONFIG), `${sha256(WEIGHTS)}.incomplete`].sort());
  const loaded: number[] = [];
  const directory = await scene.get({ onProgress: (progress) => loaded.push(progress.loaded) });
  assertEquals(Deno.readFileSync(`${directory}/model.safetensors`), WEIGHTS);
  assertEquals(scene.server.seen("cdn").at(-1)?.range, "bytes=20000-");
  assertEquals(loaded[0], 20_000);
  assertEquals(scene.blobs(), [gitSha1(CONFIG), sha256(WEIGHTS)].sort());
});

Deno.test("a small git file is taken up and checked just so", async () => {
  const files = { "vocab.json": WEIGHTS };
  await using scene = new Scene(repo({ files, lfs: [] }));
  Deno.mkdirSync(scene.path("blobs"), { recursive: true });
  Deno.writeFileSync(scene.path(`blobs/${gitSha1(WEIGHTS)}.incomplete`), WEIGHTS.subarray(0, 777));
  const directory = await scene.get();
  assertEquals(Deno.readFileSync(`${directory}/vocab.json`), WEIGHTS);
  assertEquals(scene.server.seen("get").at(-1)?.range, "bytes=777-");
});

Deno.test("a leftover that is complete needs no download; one too long or damaged is dropped", async () => {
  const cases = { complete: WEIGHTS, long: pattern(50_001), damaged: WEIGHTS.slice(0, 30_000).fill(7, 5, 9) };
  for (const [name, leftover] of Object.entries(cases)) {
    await using scene = new Scene();
    Deno.mkdirSync(scene.path("blobs"), { recursive: true });
    Deno.writeFileSync(scene.path(`blobs/${sha256(WEIGHTS)}.incomplete`), leftover);
    const directory = await scene.get();
    assertEquals(Deno.readFileSync(`${directory}/model.safetensors`), WEIGHTS, name);
    const ranges = { complete: [], long: [null], damaged: ["bytes=30000-", null] }[name];
    assertEquals(scene.server.seen("cdn").map(({ range }) => range), ranges!, name);
  }
});

Deno.test("a server that ignores ranges, or answers another one, is read from the start", async () => {
  for (
    const fault of [{ ignoreRange: true }, { status: 206, headers: { "content-range": "bytes 5-9/50000" } }]
  ) {
    await using scene = new Scene();
    scene.server.fail({ on: "cdn", cutAfter: 20_000 });
    scene.server.fail({ on: "cdn", ...fault });
    const directory = await scene.get();
    assertEquals(Deno.readFileSync(`${directory}/model.safetensors`), WEIGHTS);
  }
});

Deno.test("bytes that have not the hash that the Hub names are refused and removed", async () => {
  for (const lfs of [["model.safetensors"], []]) {
    await using scene = new Scene(repo({ files: { "model.safetensors": WEIGHTS }, lfs }));
    scene.server.fail({ on: lfs.length ? "cdn" : "get", corrupt: true, times: 9 });
    const error = await scene.failure();
    assertEquals(error.code, "network");
    assertStringIncludes(error.message, "owner/name/model.safetensors: its bytes have not the hash");
    assertEquals(scene.blobs(), []);
  }
});

Deno.test("a file of another size than the Hub names is refused and removed", async () => {
  for (const size of [WEIGHTS.length - 1, WEIGHTS.length + 1]) {
    await using scene = new Scene();
    scene.server.fail({ on: "head", size });
    const error = await scene.failure({ files: ["model.safetensors"] });
    assertStringIncludes(error.message, `the Hub names ${size} bytes`);
    assertStringIncludes(error.message, `sends ${WEIGHTS.length}`);
    assertEquals(scene.blobs(), []);
  }
});

Deno.test("a server error is met with patience, in the end with an error", async () => {
  await using scene = new Scene();
  for (const on of ["api", "head", "get", "cdn"] as const) scene.server.fail({ on, status: 503, times: 3 });
  await scene.get();
  assertEquals(scene.notes.length, 12);
  scene.server.fail({ on: "api", status: 500, times: 9 });
  const error = await scene.failure({ cacheDir: `${scene.cacheDir}/other` });
  assertMatch(error.message, /answered 500: the server's fault/);
  assertEquals(scene.server.seen("api").length, 8);
});

Deno.test("a 429 is waited out as long as it says, up to a bound", async () => {
  await using scene = new Scene();
  scene.server.fail({ on: "api", status: 429, headers: { "retry-after": "1" } });
  const start = performance.now();
  await scene.get();
  assert(performance.now() - start >= 990);
  const other = { cacheDir: `${scene.cacheDir}/other` };
  for (const [header, value] of [["retry-after", "3600"], ["ratelimit", '"api";r=0;t=3600']]) {
    scene.server.fail({ on: "api", status: 429, headers: { [header]: value } });
    assertMatch(
      (await scene.failure(other)).message,
      /too many requests \(429\), to be tried again in 3600 s: .*HF_TOKEN/,
    );
  }
});

Deno.test("silence ends an attempt, in headers and in the body", async () => {
  await using scene = new Scene();
  scene.server.fail({ on: "cdn", delay: 400 });
  scene.server.fail({ on: "cdn", stallAfter: 10_000 });
  const directory = await scene.get({ patience: { stall: 150, backoff: 1 } });
  assertEquals(Deno.readFileSync(`${directory}/model.safetensors`), WEIGHTS);
  assertEquals(scene.server.seen("cdn").map(({ range }) => range), [null, null, "bytes=10000-"]);
  assertMatch(scene.notes[0], /no answer for 0.15 s/);
});

Deno.test("an abort ends the download with its reason; what came is kept", async () => {
  await using scene = new Scene();
  scene.server.fail({ on: "cdn", stallAfter: 20_000 });
  const stop = new AbortController(), reason = new Error("enough");
  const onProgress = ({ file, loaded }: { file: string; loaded: number }) => {
    if (file === "model.safetensors" && loaded === 0) setTimeout(() => stop.abort(reason), 100);
  };
  const error = await assertRejects(() => scene.get({ signal: stop.signal, onProgress }));
  assertEquals(error, reason);
  assertEquals(Deno.statSync(scene.path(`blobs/${sha256(WEIGHTS)}.incomplete`)).size, 20_000);
  await assertRejects(() => scene.get({ signal: AbortSignal.abort(reason) }), Error, "enough");
});

Deno.test("each refusal says what to do", async () => {
  await using scene = new Scene(
    repo(),
    repo({ name: "owner/gated", gated: true }),
    repo({ name: "owner/private", private: "good" }),
  );
  const message = async (id: string, options: HubOptions = {}) => {
    const error = await scene.failure(options, id);
    assertEquals(error.code, "network");
    return error.message;
  };
  const page = `${scene.server.endpoint}/owner/gated`;
  assertMatch(await message("owner/none"), /no model "owner\/none" at .*private.*HF_TOKEN/);
  assertMatch(await message("owner/private"), /private.*HF_TOKEN/);
  assertMatch(
    await message("owner/name", { token: "bad" }),
    /does not accept the token \("Invalid cred.*HF_TOKEN/,
  );
  assertStringIncludes(
    await message("owner/gated"),
    `is gated: accept its licence at ${page}, then set HF_TOKEN`,
  );
  assertStringIncludes(await message("owner/gated", { token: "good" }), `accept its licence at ${page}`);
  assertMatch(await message("owner/name@v2"), /no revision "v2": expected a branch/);
  assertMatch(
    await message("owner/name", { files: ["config.json", "gone.json"] }),
    /owner\/name@main: no file "gone.json"/,
  );
  delete scene.server.repos[0].files["config.json"];
  scene.server.fail({ on: "head", status: 404, headers: { "x-error-code": "EntryNotFound" } });
  assertMatch(await message("owner/name"), /no file "model.safetensors"/);
  scene.server.fail({
    on: "head",
    status: 403,
    headers: { "x-error-message": "no way" },
  });
  assertMatch(await message("owner/name"), /access denied \(403\) \("no way"\): set HF_TOKEN/);
  const empty = await scene.failure({ files: () => false });
  assertEquals([empty.code, empty.message.includes("none of its 3 files")], ["format", true]);
});

Deno.test("a server that is no Hub is told from one", async () => {
  await using scene = new Scene();
  scene.server.fail({ on: "api", status: 200, body: "<html>log in\nfirst</html>" });
  assertMatch(
    (await scene.failure()).message,
    /not a Hub's listing of owner\/name \("<html>log in first<\/html>"\): check HF_ENDPOINT/,
  );
  scene.server.fail({ on: "api", status: 404, times: 2 });
  assertMatch(
    (await scene.failure()).message,
    /answered 404 for \/api\/models\/owner\/name\/revision\/main: check HF_ENDPOINT/,
  );
  for (const tag of ["../../x", "", "a/b"]) {
    scene.server.fail({ on: "head", status: 200, headers: { etag: `"${tag}"` } });
    assertMatch((await scene.failure()).message, /names no usable hash \(ETag\)/);
  }
  scene.server.fail({ on: "head", status: 302, headers: { location: "/loop/resolve/main/x" } });
  scene.server.fail({ on: "head", status: 302, headers: { location: "/loop/resolve/main/x" }, times: 30 });
  assertMatch((await scene.failure()).message, /more than 20 redirects/);
  const error = await scene.failure({ endpoint: "ftp://example.org" });
  assertEquals([error.code, error.message.startsWith("HF_ENDPOINT:")], ["option", true]);
});

Deno.test("a mirror that knows only the bare listing will do", async () => {
  await using scene = new Scene();
  scene.server.fail({ on: "api", status: 404 });
  await scene.get();
  assertEquals(scene.server.seen("api").map(({ path }) => path.includes("?")), [true, false]);
  assertEquals(await scene.get({ offline: true }), scene.path(`snapshots/${COMMIT}`));
});

Deno.test("names that leave the snapshot are refused before anything is fetched", async () => {
  for (const name of ["../x", "/etc/x", "a/../../x", "a\\x", "C:x", "a//x", "nul\0"]) {
    await using scene = new Scene(repo({ files: { "config.json": CONFIG, [name]: CONFIG } }));
    const error = await scene.failure({ files: (one) => one === name });
    assertStringIncludes(error.message, JSON.stringify(name));
    assertEquals(scene.server.seen("get"), []);
    await scene.get({ files: ["config.json"] });
  }
});

Deno.test("an id or revision that is none is refused without a request", async () => {
  await using scene = new Scene();
  for (
    const id of [
      "",
      "a/b/c",
      "../x",
      "a/..",
      "a--b",
      "a b",
      "/a",
      "-a/b",
      "a/b.",
      "a@../x",
      "a@x..y",
      "a@/x",
      "a@",
    ]
  ) {
    assertEquals((await scene.failure({}, id)).code, "option", id);
  }
  assertEquals((await scene.failure({ revision: "v1" }, "owner/name@v2")).code, "option");
  assertEquals(scene.server.requests, []);
});

Deno.test("without a network the cache is used, and says so", async () => {
  await using scene = new Scene();
  const directory = await scene.get();
  scene.server.fail({ on: "api", status: 500 });
  assertEquals(await scene.get(), directory);
  assertMatch(scene.notes.pop()!, /answered 500.*using owner\/name from the cache, commit 0123456$/);
  // The Hub speaks: no falling back.
  scene.server.fail({ on: "api", status: 404, headers: { "x-error-code": "RevisionNotFound" } });
  assertMatch((await scene.failure()).message, /no revision/);
  await scene.unplug();
  assertEquals(await scene.get(), directory);
  assertMatch(scene.notes.pop()!, /cannot be reached \(.*using owner\/name from the cache/);
  assertMatch((await scene.failure({ files: ["other.json"] })).message, /cannot be reached/);
  assertMatch((await scene.failure({}, "owner/other")).message, /cannot be reached/);
});

Deno.test("offline, what is not in the cache is named", async () => {
  await using scene = new Scene();
  const off = { offline: true };
  assertMatch((await scene.failure(off)).message, /offline, and model owner\/name@main is not in the cache/);
  await scene.get({ files: ["config.json"] });
  assertMatch(
    (await scene.failure(off)).message,
    /offline, and file "model.safetensors" of owner\/name@main is not/,
  );
  assertEquals(await scene.get({ ...off, files: ["config.json"] }), scene.path(`snapshots/${COMMIT}`));
  assertMatch((await scene.failure({ ...off, revision: "f".repeat(40) })).message, /is not in the cache/);
});

Deno.test("what huggingface_hub laid out is found, with and without its listing", async () => {
  await using scene = new Scene();
  const snapshot = scene.path(`snapshots/${COMMIT}`), off = { offline: true };
  Deno.mkdirSync(snapshot, { recursive: true });
  Deno.mkdirSync(scene.path("refs"));
  Deno.writeTextFileSync(scene.path("refs/main"), COMMIT);
  Deno.writeFileSync(`${snapshot}/model.safetensors`, WEIGHTS);
  assertEquals(await scene.get(off), snapshot);
  Deno.mkdirSync(scene.path("trees"));
  const files = {
    "model.safetensors": { size: 50_000, blob_id: "x" },
    "config.json": { size: 14, blob_id: "x" },
  };
  const tree = JSON.stringify({ format_version: 1, files });
  Deno.writeTextFileSync(scene.path(`trees/${COMMIT}.json`), tree);
  assertStringIncludes((await scene.failure(off)).message, `file "config.json"`);
  await scene.get();
  assertEquals(scene.server.seen("cdn"), []);
  assertEquals(Deno.readTextFileSync(scene.path(`trees/${COMMIT}.json`)), tree);
  Deno.writeTextFileSync(scene.path("refs/main"), "../../../etc");
  assertStringIncludes((await scene.failure(off)).message, "is not in the cache");
});

Deno.test("a blob that was deleted or cut short is fetched again", async () => {
  await using scene = new Scene();
  const directory = await scene.get(), blob = scene.path(`blobs/${sha256(WEIGHTS)}`);
  Deno.removeSync(blob);
  await scene.get();
  assertEquals(Deno.readFileSync(`${directory}/model.safetensors`), WEIGHTS);
  Deno.truncateSync(blob, 100);
  Deno.removeSync(`${directory}/model.safetensors`);
  await scene.get();
  assertEquals(Deno.readFileSync(`${directory}/model.safetensors`), WEIGHTS);
});

Deno.test("two calls and two processes at once download a file once", async () => {
  await using scene = new Scene();
  scene.server.fail({ on: "cdn", delay: 700 });
  const { onNote: _, ...options } = scene.options;
  const all = await Promise.all([
    child(["-A"], options),
    child(["-A"], options),
    scene.get(),
    scene.get(),
  ]);
  assertEquals(all, Array(4).fill(scene.path(`snapshots/${COMMIT}`)));
  assertEquals(scene.server.seen("cdn").length, 1);
  assertEquals(Deno.readFileSync(`${all[0]}/model.safetensors`), WEIGHTS);
  assertEquals(scene.blobs(), [gitSha1(CONFIG), sha256(WEIGHTS)].sort());
});

Deno.test("a lock whose holder gets nowhere is reported, not waited for without end", async () => {
  await using scene = new Scene();
  const locks = `${scene.cacheDir}/.locks/models--owner--name`;
  Deno.mkdirSync(locks, { recursive: true });
  using held = Deno.openSync(`${locks}/${sha256(WEIGHTS)}.lock`, { create: true, write: true });
  held.lockSync(true);
  const error = await scene.failure({ patience: { lock: 150 } });
  assertEquals(error.code, "resource");
  assertStringIncludes(error.message, "another process holds it");
  assertMatch(scene.notes.at(-1)!, /waiting for another process/);
});

Deno.test({
  name: "a full disk is reported, and leaves no blob",
  ignore: Deno.build.os !== "linux",
  async fn() {
    await using scene = new Scene();
    Deno.mkdirSync(scene.path("blobs"), { recursive: true });
    Deno.symlinkSync("/dev/full", scene.path(`blobs/${sha256(WEIGHTS)}.incomplete`));
    const error = await scene.failure({ files: ["model.safetensors"] });
    assertEquals(error.code, "resource");
    assertStringIncludes(error.message, "the disk is full");
    assertEquals(scene.blobs(), []);
  },
});

Deno.test("a missing permission is named by its flag, and nothing else is needed", async () => {
  await using scene = new Scene();
  const { onNote: _, ...options } = scene.options;
  const { cacheDir, server } = scene;
  const hub = new URL(server.endpoint).host;
  const read = `--allow-read=${cacheDir}`, write = `--allow-write=${cacheDir}`;
  const [none, noNet, noCdn, noWrite] = await Promise.all([
    child([], options),
    child([read, write], options),
    child([read, write, `--allow-net=${hub}`], { ...options, cacheDir: `${cacheDir}/a` }),
    child([read, `--allow-net=${hub}`], { ...options, cacheDir: `${cacheDir}/b` }),
  ]);
  assertStringIncludes(none, `resource: the Hub's cache ${cacheDir}: no permission to read it: add ${read}`);
  assertStringIncludes(noNet, `resource: ${hub}: no permission to reach it: add --allow-net=${hub}`);
  assertStringIncludes(noCdn, `add --allow-net=${server.cdnHost}`);
  assertStringIncludes(noWrite, `add --allow-write=${cacheDir}/b`);

  // Symbolic links need more than scoped permissions: hard links take their place.
  const directory = await child([read, write, `--allow-net=${hub},${server.cdnHost}`], options);
  assertEquals(Deno.readFileSync(`${directory}/model.safetensors`), WEIGHTS);
  assert(!Deno.lstatSync(`${directory}/model.safetensors`).isSymlink);
  assertEquals(Deno.statSync(scene.path(`blobs/${sha256(WEIGHTS)}`)).nlink, 2);
  // The cache alone needs neither network nor the right to write, whichever links it has.
  const linked = await scene.get({ cacheDir: `${cacheDir}/c` });
  assert(Deno.build.os === "windows" || Deno.lstatSync(`${linked}/model.safetensors`).isSymlink);
  assertEquals(await child([read], options), directory);
  assertEquals(await child([`${read}/c`], { ...options, cacheDir: `${cacheDir}/c` }), linked);
});

Deno.test("the variables mean what they mean in huggingface_hub", async () => {
  await using scene = new Scene(repo({ private: "from-env" }));
  const home = scene.cacheDir, patience = scene.options.patience;
  const env = { HF_ENDPOINT: scene.server.endpoint + "/", HOME: home, USERPROFILE: home };
  const at = (cache: string) => `${cache}/models--owner--name/snapshots/${COMMIT}`;
  Deno.writeTextFileSync(`${home}/token`, "from-env\n");
  const [byToken, byXdg, byCache, refused, blind] = await Promise.all([
    child(["-A"], { patience }, { ...env, HF_TOKEN: "from-env" }),
    child(["-A"], { patience }, { ...env, XDG_CACHE_HOME: `${home}/x`, HF_TOKEN_PATH: "~/token" }),
    child(["-A"], { patience }, { ...env, HF_HOME: home, HF_HUB_CACHE: "$HF_HOME/c" }),
    child(["-A"], { patience }, { ...env, HF_HOME: home, HF_TOKEN: "wrong" }),
    child(["--allow-read"], { patience }, { ...env, HF_TOKEN: "from-env" }),
  ]);
  assertEquals(byToken, at(`${home}/.cache/huggingface/hub`));
  assertEquals(byXdg, at(`${home}/x/huggingface/hub`));
  assertEquals(byCache, at(`${home}/c`));
  assertStringIncludes(refused, "network: ");
  assertStringIncludes(refused, "does not accept the token");
  assertStringIncludes(blind, "run with --allow-env=HOME,HF_HOME");
  const offline = { ...env, HF_HUB_OFFLINE: "1" };
  scene.server.requests.length = 0;
  assertEquals(await child(["-A"], {}, { ...offline, HF_HUB_CACHE: `${home}/c` }), at(`${home}/c`));
  assertStringIncludes(
    await child(["-A"], {}, { ...offline, HF_HOME: `${home}/n` }),
    "offline, and model owner/name@main",
  );
  assertEquals(scene.server.requests, []);
});
