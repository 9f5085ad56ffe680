import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { type Browser, chromium, type Page } from "npm:playwright-core@1.65.1";
import { GPT2 } from "../src/gpt2.ts";
import { Lora } from "../src/model/lora.ts";
import { createHandler, type Handler, type HandlerOptions } from "../src/serve/handler.ts";
import { inTempDir } from "./support/models.ts";

/** Debian's Chromium, or that which CHROMIUM names. */
const CHROMIUM = Deno.env.get("CHROMIUM") ?? "/usr/bin/chromium";
const missing = await Deno.stat(CHROMIUM).then(() => false, () => true);
if (missing) console.warn(`there is no ${CHROMIUM}: the page is not tested; name a Chromium in CHROMIUM`);

/** A server and the page that it serves, in a browser. */
interface Scene extends AsyncDisposable {
  page: Page;
  url: string;
  handler: Handler;
  /** Stands between the server and the page: its answers may be held up, slowed down or replaced. */
  between: { answer: (request: Request, handler: Handler) => Promise<Response> };
  /** What must not be: errors of the page's script, requests to other places. */
  wrong: string[];
  /** Shuts the server. */
  close(): Promise<void>;
}

/** Where the page lies. */
const PREFIX = "/models/whet/";

async function open(
  browser: Browser,
  options: HandlerOptions,
  view: Parameters<Browser["newContext"]>[0] & { visit?: boolean } = {},
): Promise<Scene> {
  const handler = createHandler({ log: () => {}, ...options });
  const between: Scene["between"] = { answer: (request, handler) => handler(request) };
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, (request) => {
    const url = new URL(request.url);
    if (!url.pathname.startsWith(PREFIX)) return new Response("elsewhere", { status: 404 });
    url.pathname = url.pathname.slice(PREFIX.length - 1);
    return between.answer(new Request(url, request), handler);
  });
  const url = `http://127.0.0.1:${server.addr.port}${PREFIX}`;
  const context = await browser.newContext(view);
  context.setDefaultTimeout(15_000);
  const page = await context.newPage();
  const wrong: string[] = [];
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("console", (message) => {
    // The browser itself notes every refused request.
    if (!message.text().startsWith("Failed to load resource")) wrong.push(message.text());
  });
  page.on("request", (request) => request.url().startsWith(url) || wrong.push(request.url()));
  let closed = false;
  const close = async () => {
    if (closed) return;
    closed = true;
    await handler.shutdown(0);
    await server.shutdown();
  };
  if (view.visit !== false) {
    await page.goto(url);
    await page.locator("#list button").first().waitFor({ state: "attached" });
    await page.evaluate("document.querySelector('#seed').value = 7"); // The same answers in every run.
  }
  return {
    ...{ page, url, handler, between, wrong, close },
    async [Symbol.asyncDispose]() {
      await context.close();
      await close();
    },
  };
}

const say = async (page: Page, text: string) => {
  await page.locator("#text").fill(text);
  await page.keyboard.press("Control+Enter");
};
/** Waits until what was sent is answered. */
const answered = async (page: Page) => {
  await page.locator("#announce", { hasNotText: /^(Sent\.)?$/ }).waitFor({ state: "attached" });
  await page.locator("#stop").waitFor({ state: "hidden" });
};
const texts = (page: Page, selector: string) => page.locator(selector).allTextContents();

/** Lets the bytes of answers through one event every so many milliseconds. */
function slowly(ms: number, onCancel: () => void): Scene["between"]["answer"] {
  return async (request, handler) => {
    const response = await handler(request);
    if (!response.headers.get("content-type")?.startsWith("text/event-stream")) return response;
    const reader = response.body!.getReader();
    const body = new ReadableStream<Uint8Array>({
      async pull(controller) {
        await new Promise((resolve) => setTimeout(resolve, ms));
        const { value, done } = await reader.read();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      async cancel(reason) {
        onCancel();
        await reader.cancel(reason);
      },
    }, { highWaterMark: 0 });
    return new Response(body, response);
  };
}

const refused = (status: number, message: string, code: string, headers = {}) =>
  Promise.resolve(Response.json({ error: { message, code } }, { status, headers }));

Deno.test({ name: "the page at /, in Chromium", ignore: missing }, async (t) => {
  await inTempDir(async (directory) => {
    using model = await GPT2.load("nano", { backend: "wasm", threads: 1 });
    const lora = Lora.create(model, { rank: 2 });
    for (const { B } of lora.modules.values()) {
      for (let i = 0; i < B.length; i++) B[i] = Math.sin(i) * 0.5;
    }
    await lora.save(`${directory}/tuned`);
    const options = { model, adapters: { "acme/tuned": `${directory}/tuned` } };
    const browser = await chromium.launch({ executablePath: CHROMIUM });
    const check = async (
      claim: string,
      work: (scene: Scene) => Promise<void>,
      more: HandlerOptions = {},
      view?: Parameters<typeof open>[2],
    ) => {
      await t.step(claim, async () => {
        await using scene = await open(browser, { ...options, ...more }, view);
        await work(scene);
        assertEquals(scene.wrong, []);
      });
    };
    try {
      await check(
        "base and adapter answer side by side, as the API does with the same seed",
        async (scene) => {
          const { page, url } = scene;
          assertEquals(await page.getByRole("combobox", { name: "Left model" }).inputValue(), "nano");
          assertEquals(await page.getByRole("combobox", { name: "Right model" }).inputValue(), "acme/tuned");
          assertMatch(await page.locator("#state").innerText(), /nano, 1 adapter$/);
          await page.getByRole("spinbutton", { name: "Seed" }).fill("7");
          await page.getByRole("spinbutton", { name: "Most tokens" }).fill("12");
          await say(page, "Hello!");
          await answered(page);
          const asked = async (model: string) => {
            const response = await fetch(`${url}v1/chat/completions`, {
              method: "POST",
              headers: { "content-type": "application/json" },
              body: JSON.stringify({
                ...{ model, messages: [{ role: "user", content: "Hello!" }], seed: 7, max_tokens: 12 },
                ...{ temperature: 0.8, top_p: 0.95, repetition_penalty: 1.1, top_k: 0 },
              }),
            });
            return (await response.json()).choices[0].message.content;
          };
          const answers = await texts(page, ".answer");
          assertEquals(answers, [await asked("nano"), await asked("acme/tuned")]);
          assert(answers[0] !== answers[1] && answers[0].length > 5, answers.join(" / "));
          for (const stats of await texts(page, ".stats")) {
            assertMatch(stats, /^first token [\d.]+ m?s · [\d.,]+ tokens\/s · \d+ tokens · .*seed 7$/);
          }
          assertEquals(
            await page.locator("#announce").textContent(),
            `nano: ${answers[0]}\nacme/tuned: ${answers[1]}`,
          );
          assertEquals(await page.locator("#text").inputValue(), "");

          // The dialogue goes on, each side with its own answer.
          const bodies: { model: string; messages: { content: string }[] }[] = [];
          scene.between.answer = async (request, handler) => {
            if (request.method === "POST") bodies.push(await request.clone().json());
            return await handler(request);
          };
          await say(page, "And then?");
          await page.locator(".answer").nth(3).waitFor({ state: "attached" });
          await answered(page);
          bodies.sort((a, b) => a.model < b.model ? 1 : -1);
          assertEquals(bodies.map(({ messages }) => messages.map(({ content }) => content)), [
            ["Hello!", answers[0], "And then?"],
            ["Hello!", answers[1], "And then?"],
          ]);
          // What would be sent, for a shell.
          await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
          await page.locator("#text").fill("It's me");
          await page.getByRole("button", { name: "Copy as curl" }).click();
          await page.getByRole("button", { name: "Copied" }).waitFor();
          const command = await page.evaluate("navigator.clipboard.readText()") as string;
          assertMatch(
            command,
            /^curl 'http:.*\/v1\/chat\/completions' [^]* -d '.*"content":"It'\\''s me".*'$/,
          );
          await page.getByRole("button", { name: "New dialogue" }).click();
          assertEquals(await texts(page, ".answer"), []);
        },
      );

      await check("Escape stops both sides, and the server hears of it; what came stays", async (scene) => {
        const { page, handler } = scene;
        let cancelled = 0;
        scene.between.answer = slowly(40, () => cancelled++);
        await page.getByText("Prompt", { exact: true }).click();
        // So hot that no text comes to its end by itself.
        await page.getByRole("slider", { name: "Temperature" }).fill("2");
        await page.getByRole("slider", { name: "Top p" }).fill("1");
        await page.getByRole("spinbutton", { name: "Seed" }).fill("1");
        await page.getByRole("spinbutton", { name: "Most tokens" }).fill("200");
        await say(page, "The best way");
        for (const side of await page.locator(".answer").all()) await side.getByText(/\w/).waitFor();
        assert(await page.getByRole("button", { name: "Stop" }).isVisible());
        await page.keyboard.press("Escape");
        await answered(page);
        const before = await texts(page, ".answer");
        assert(before.every((text) => text.length > 0));
        for (const stats of await texts(page, ".stats")) assertStringIncludes(stats, "stopped");
        assertStringIncludes(await page.locator("#announce").textContent() ?? "", "(stopped)");
        for (let left = 50;; left--) {
          const metrics = await (await handler(new Request("http://localhost/metrics"))).text();
          if (cancelled === 2 && /^whet_texts_open 0$/m.test(metrics)) break;
          assert(left > 0, `the server goes on: ${cancelled} answers cut off, ${metrics}`);
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        assertEquals(await texts(page, ".answer"), before);
        assertEquals(await page.locator("#text").inputValue(), "The best way");
      });

      await check("the keyboard alone reaches every control, and shows where it is", async ({ page }) => {
        const reached: string[] = [];
        await page.keyboard.press("Tab");
        for (let i = 0; i < 60; i++) {
          const [name, outline, inside] = await page.evaluate(`(() => {
            const at = document.activeElement;
            const shown = at.matches(".segments input") ? at.nextElementSibling : at;
            return [at.id || at.className || at.name || at.textContent.trim(), getComputedStyle(shown).outlineStyle,
              at !== document.body];
          })()`) as [string, string, boolean];
          if (!inside) break;
          assert(outline !== "none", `${name}: nothing shows that it has the focus`);
          if (name === "text") {
            await page.keyboard.type("Once upon a time");
          }
          if (name === "mode" && reached.at(-1) !== "mode") await page.keyboard.press("ArrowRight"); // Prompt
          if (name === "max_tokens") await page.keyboard.press("ArrowDown");
          if (name === "logprobs") await page.keyboard.press("Space");
          reached.push(name);
          await page.keyboard.press("Tab");
        }
        const must = [
          "skip",
          "mode",
          "compare",
          "log",
          "text",
          "send",
          "refresh",
          "temperature",
          "top_p",
          "stops",
        ];
        for (
          const name of [...must, "repetition_penalty", "top_k", "max_tokens", "seed", "logprobs", "reset"]
        ) {
          assert(reached.includes(name), `${name} is not reached: ${reached.join(", ")}`);
        }
        await page.locator("#send").focus();
        await page.keyboard.press("Enter");
        await answered(page);
        assertEquals(await texts(page, ".prompt"), ["Once upon a time", "Once upon a time"]);
        // The arrows go through the tokens and say how likely each was.
        await page.locator(".log").first().focus();
        await page.keyboard.press("ArrowRight");
        await page.keyboard.press("ArrowRight");
        assertMatch(
          await page.locator(".token").first().innerText(),
          /^".+"\s[\d.]+\s%(.*; ".+" .*%)? · else ".+ %/,
        );
        assertEquals(await page.locator(".scored.on").count(), 1);
      });

      await check(
        "everything has a name for those who hear the page; no token is read out alone",
        async ({ page }) => {
          await say(page, "Hi");
          await answered(page);
          const session = await page.context().newCDPSession(page);
          const { nodes } = await session.send("Accessibility.getFullAXTree");
          const roles = new Map<string, string[]>();
          for (const { ignored, role, name } of nodes) {
            if (ignored) continue;
            roles.set(role?.value, [...roles.get(role?.value) ?? [], name?.value ?? ""]);
          }
          const named = [
            "textbox",
            "button",
            "combobox",
            "checkbox",
            "radio",
            "slider",
            "spinbutton",
            "link",
            "region",
          ];
          for (const role of [...named, "complementary"]) {
            assert(roles.has(role), `there is no ${role}: ${[...roles.keys()].join(", ")}`);
            for (const name of roles.get(role)!) assert(name.trim(), `a ${role} has no name`);
          }
          for (const role of ["banner", "main"]) assertEquals(roles.get(role)?.length, 1);
          assertEquals(await page.locator("[aria-live=assertive], [role=log]").count(), 0);
          assertEquals(await page.locator("[role=status] .answer, [aria-live] .answer").count(), 0);
          for (const side of ["left", "right"]) {
            assert(await page.getByRole("group", { name: `What the ${side} side says` }).isVisible());
          }
          assertEquals(await page.locator("html").getAttribute("lang"), "en");
        },
      );

      await check("what looks like HTML stays text", async ({ page }) => {
        const text = "<img src=x onerror=alert(1)><script>alert(2)</script>&amp;";
        await page.getByLabel("Side by side").uncheck();
        await say(page, text);
        await answered(page);
        assertStringIncludes((await texts(page, ".turn"))[0], text);
        assertEquals(await page.locator("main img, main script").count(), 0);
        assertEquals(await page.locator(".side:visible").count(), 1);
      });

      await check("a dialogue longer than the window goes on without its oldest turns", async ({ page }) => {
        await page.getByLabel("Side by side").uncheck();
        await page.getByRole("spinbutton", { name: "Most tokens" }).fill("5");
        for (let turn = 1; turn <= 4; turn++) {
          await say(page, `${turn} ${"on and on ".repeat(22)}`);
          await page.locator(".answer").nth(turn - 1).waitFor({ state: "attached" });
          await answered(page);
        }
        assertEquals(await page.locator(".bad").count(), 0);
        assertMatch((await texts(page, ".note")).at(-1)!, /no longer sees \d turns? at the beginning/);
        assert((await texts(page, ".answer"))[3].length > 0);
        assert(
          await page.evaluate(`(({ scrollHeight, scrollTop, clientHeight }) =>
            scrollHeight > clientHeight && scrollHeight - scrollTop - clientHeight < 2)(document.querySelector(".log"))`),
          "the newest line is out of sight",
        );
      });

      await check(
        "a server with a key asks for it, and keeps it in the tab alone",
        async ({ page, url }) => {
          await page.goto(url);
          const dialog = page.getByRole("dialog", { name: "API key" });
          await dialog.getByText("This server wants an API key.").waitFor();
          await dialog.getByLabel("Key").fill("wrong");
          await page.keyboard.press("Enter");
          await dialog.getByText("The API key is not this server's.").waitFor();
          await dialog.getByLabel("Key").fill("secret");
          await page.keyboard.press("Enter");
          await page.locator("#list button").first().waitFor();
          assertEquals(await page.evaluate("[{ ...sessionStorage }, localStorage.length, document.cookie]"), [
            { "whet-key": "secret" },
            0,
            "",
          ]);
          await say(page, "Hi");
          await answered(page);
          assertEquals(await page.locator(".bad").count(), 0);
        },
        { apiKey: "secret" },
        { visit: false },
      );

      await check(
        "where there is room for one text, one side says that the server is busy",
        async (scene) => {
          const { page, between } = scene;
          // The second comes when the first has its first token.
          let first: Promise<Response> | null = null;
          between.answer = async (request, handler) => {
            if (request.method !== "POST") return await handler(request);
            if (!first) return await (first = handler(request));
            await first;
            return await handler(request);
          };
          for (const side of ["Left", "Right"]) {
            await page.getByRole("combobox", { name: `${side} model` }).selectOption("acme/tuned");
          }
          await say(page, "Hi");
          await answered(page);
          const [bad, ...others] = await texts(page, ".bad");
          assertEquals(bad, "The server is busy: too many requests are waiting. Try again in 1 second.");
          assertEquals(others, []);
          assert((await texts(page, ".answer")).some((text) => text.length > 0));
        },
        { slots: 1, queue: 0 },
      );

      await check("what goes wrong is said in words, and the message can be sent again", async (scene) => {
        const { page } = scene;
        await page.getByLabel("Side by side").uncheck();
        const fails = async (answer: Scene["between"]["answer"], words: string) => {
          scene.between.answer = answer;
          await say(page, "Hi");
          await page.locator(".bad", { hasText: words }).waitFor();
          await answered(page);
          assertEquals(await page.locator("#text").inputValue(), "Hi");
          assertEquals(await page.locator(".turn").count(), 1);
        };
        await fails(() => refused(503, "x", "overloaded", { "retry-after": "3" }), "Try again in 3 seconds.");
        await fails(() => refused(400, "prompt: too odd", "odd"), "Prompt: too odd.");
        await fails(
          () => Promise.resolve(new Response("<h1>Bad gateway</h1>", { status: 502 })),
          "status 502",
        );
        const broken = 'data: {"choices":[{"index":0,"delta":{"content":""}}]}\n\n';
        await fails(() => Promise.resolve(new Response(broken)), "The connection broke");
        await fails(
          () =>
            Promise.resolve(
              new Response('data: {"error":{"message":"it took too long","code":"timeout"}}\n\n'),
            ),
          "It took too long.",
        );
        await scene.close();
        await fails(() => Promise.reject(), "The server cannot be reached.");
      });

      await check(
        "while the model is being loaded the page says so, and then shows it",
        async (scene) => {
          const { page, url, between } = scene;
          const { promise, resolve } = Promise.withResolvers<void>();
          between.answer = async (request, handler) => {
            const { pathname } = new URL(request.url);
            if (pathname === "/readyz") return new Response("loading\n", { status: 503 });
            if (pathname === "/v1/models") await promise;
            return await handler(request);
          };
          await page.goto(url);
          await page.getByText("The model is being loaded…").waitFor();
          await say(page, "Hi");
          assertEquals(await page.locator("#text").inputValue(), "Hi");
          resolve();
          await page.getByText("nano, 1 adapter").waitFor();
          // An adapter that comes is there when asked for.
          between.answer = async (request, handler) => {
            const response = await handler(request);
            if (!request.url.endsWith("/v1/models")) return response;
            const { data } = await response.json();
            return Response.json({ data: [...data, { ...data[1], id: "newcomer" }] });
          };
          await page.getByRole("button", { name: "Look again" }).click();
          await page.getByRole("button", { name: "newcomer" }).click();
          assertEquals(await page.getByRole("combobox", { name: "Right model" }).inputValue(), "newcomer");
        },
        {},
        { visit: false },
      );

      for (const colorScheme of ["light", "dark"] as const) {
        await check(
          `320 pixels are enough, and ${colorScheme} has contrast`,
          async ({ page }) => {
            await page.locator("#settings summary").click();
            await page.locator("#models summary").click();
            await say(page, "Endlesslylongword".repeat(6));
            await answered(page);
            assertEquals(await page.evaluate("document.documentElement.scrollWidth"), 320);
            const ratios = await page.evaluate(CONTRASTS) as [string, number][];
            assert(ratios.length > 8);
            for (const [name, ratio] of ratios) assert(ratio >= 4.5, `${name}: ${ratio}`);
            const ground = await page.evaluate("getComputedStyle(document.body).backgroundColor") as string;
            assertEquals(Number(/\d+/.exec(ground)![0]) < 128, colorScheme === "dark");
            assertEquals(
              await page.evaluate(
                "getComputedStyle(document.querySelector('.answer'), '::after').animationName",
              ),
              "none",
            );
          },
          {},
          { viewport: { width: 320, height: 560 }, colorScheme, reducedMotion: "reduce" },
        );
      }
    } finally {
      await browser.close();
    }
  });
});

/** Contrasts of texts with what lies behind them (WCAG 2.2, 1.4.3), in the page. */
const CONTRASTS = `(() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = parts(color).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return parts(color)[3] === 0 ? behind(element.parentElement) : color;
  };
  const names = ["h1", "#state", "a[href^=open]", ".segments span", "#clear", ".place", ".who", ".answer", ".stats",
    "select", "#text", ".hint", "#send", "summary", "#count", "#list button", "#list span", "output"];
  return names.map((name) => {
    const element = document.querySelector(name);
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => b - a);
    return [name, (a + 0.05) / (b + 0.05)];
  });
})()`;
