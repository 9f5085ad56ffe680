// The page at `/`: a model and an adapter, or any two, side by side. Plain JavaScript of today's browsers; every address
// is relative, so that the server may lie under a prefix; what models write is only ever text (`textContent`).

const $ = (id) => document.getElementById(id);

/** An element with text in it. */
function make(tag, className, ...children) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

const number = new Intl.NumberFormat("en");
const rough = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const count = (n, what) => `${number.format(n)} ${what}${n === 1 ? "" : "s"}`;
const mode = () => document.querySelector("[name=mode]:checked").value;

// ---- The server ----

let memory = ""; // Where a browser forbids storage.
const key = {
  get: () => {
    try {
      return sessionStorage.getItem("whet-key") ?? "";
    } catch {
      return memory;
    }
  },
  set: (value) => {
    memory = value;
    try {
      sessionStorage.setItem("whet-key", value);
    } catch { /* memory has it */ }
  },
};

/** What the server answered when it did not do what was asked. */
class Refusal extends Error {
  constructor({ status = 0, code = "", message = "", retryAfter = 0 }) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

async function ask(path, { body, signal } = {}) {
  const headers = {};
  if (key.get()) headers.authorization = `Bearer ${key.get()}`;
  if (body) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method: body ? "POST" : "GET",
      headers,
      body: body && JSON.stringify(body),
      signal,
      cache: "no-store",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refusal({});
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  const { code, message } = error ?? {};
  const retryAfter = Number(response.headers.get("retry-after")) || 0;
  throw new Refusal({ status: response.status, code: code ?? "", message: message ?? "", retryAfter });
}

/** What went wrong, in words. */
function explain(error) {
  if (!(error instanceof Refusal)) return `The page itself failed: ${error}`;
  const { status, code, retryAfter, message } = error;
  const said = message && message[0].toUpperCase() + message.slice(1).replace(/\.?$/, ".");
  const later = retryAfter ? ` Try again in ${count(retryAfter, "second")}.` : " Try again later.";
  if (code === "broken_off") return said;
  if (status === 0) return "The server cannot be reached. Is it still running?";
  if (status === 401) {
    return key.get() ? "The API key is not this server's." : "This server wants an API key.";
  }
  if (status === 429) return `The server is busy: too many requests are waiting.${later}`;
  if (status === 503 && code === "model_not_loaded") {
    return "The server could not load its model; its log says why.";
  }
  if (status === 503 && code === "shutting_down") return "The server is shutting down.";
  if (status === 503) return `The server has no room for this now.${later}`;
  return said || `The server answered with status ${status}.`;
}

/** The data of server-sent events, parsed; ends at [DONE]. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    while (true) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue;
        const data = line.slice(5).trim();
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new Refusal({ status: 500, ...event.error });
        yield event;
      }
    }
  } catch (error) {
    if (error instanceof Refusal || error.name === "AbortError") throw error;
  } finally {
    reader.cancel().catch(() => {});
  }
  throw new Refusal({ code: "broken_off", message: "the connection broke before the answer was complete" });
}

// ---- What to send ----

const RANGES = ["temperature", "top_p", "repetition_penalty"];
const stops = () => $("stops").value.split("\n").filter(Boolean).map((line) => line.replaceAll("\\n", "\n"));

function sampling() {
  const fields = {};
  for (const id of [...RANGES, "top_k", "max_tokens"]) fields[id] = Number($(id).value);
  // Both sides draw by the same numbers, and whoever likes what came can have it again.
  fields.seed = $("seed").value === ""
    ? crypto.getRandomValues(new Uint32Array(1))[0] % 1e6
    : Number($("seed").value);
  if (stops().length > 0) fields.stop = stops();
  return fields;
}

// ---- One side ----

class Side {
  /** Turns of the dialogue that have an answer; those before `from` no longer fit the window. */
  turns = [];
  from = 0;
  /** What was there in the other mode. */
  #aside = [];
  #details = new WeakMap();
  #stuck = true;

  constructor(place) {
    this.place = place;
    this.root = $("side").content.firstElementChild.cloneNode(true);
    const find = (selector) => this.root.querySelector(selector);
    [this.select, this.log, this.token, this.stats] = ["select", ".log", ".token", ".stats"].map(find);
    this.root.setAttribute("aria-label", `${place} side`);
    this.log.setAttribute("aria-label", `What the ${place.toLowerCase()} side says`);
    find(".place").textContent = `${place} model`;
    this.select.addEventListener("change", () => showList());
    this.log.addEventListener("scroll", () => {
      this.#stuck = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 40;
    });
    this.log.addEventListener("pointerover", ({ target }) => this.#point(target));
    this.log.addEventListener("keydown", (event) => this.#step(event));
    $("sides").append(this.root);
  }

  get model() {
    return this.select.value;
  }

  clear() {
    this.turns = [];
    this.from = 0;
    this.log.replaceChildren();
    this.stats.textContent = this.token.textContent = "";
  }

  switchMode() {
    const now = [...this.log.childNodes];
    this.log.replaceChildren(...this.#aside);
    this.#aside = now;
    this.stats.textContent = this.token.textContent = "";
  }

  /** The path and the body of a request for what follows a text. */
  request(text, settings) {
    const { max_tokens, ...rest } = settings;
    const body = { model: this.model, ...rest };
    const withLogProbs = $("logprobs").checked;
    if (mode() === "prompt") {
      if (withLogProbs) body.logprobs = 5;
      return ["v1/completions", { ...body, max_tokens, prompt: text }];
    }
    if (withLogProbs) Object.assign(body, { logprobs: true, top_logprobs: 5 });
    const messages = this.turns.slice(this.from).flatMap(({ said, answer }) => [
      { role: "user", content: said },
      { role: "assistant", content: answer },
    ]);
    messages.push({ role: "user", content: text });
    return ["v1/chat/completions", { ...body, max_completion_tokens: max_tokens, messages }];
  }

  async #ask(text, settings, signal) {
    while (true) {
      const [path, body] = this.request(text, settings);
      const streamed = { ...body, stream: true, stream_options: { include_usage: true } };
      try {
        return await ask(path, { body: streamed, signal });
      } catch (error) {
        // The window is full: without the oldest turn it may do.
        const less = mode() === "chat" && this.from < this.turns.length;
        if (error.code !== "context_length_exceeded" || !less) throw error;
        this.from++;
      }
    }
  }

  /** Sends, and shows what comes. Returns what to announce, and whether anything came. */
  async send(text, settings, signal) {
    const { model, turns } = this; // These turns: there may be a new dialogue when the answer ends.
    const isChat = mode() === "chat";
    this.log.querySelector(".failed")?.remove();
    const answer = make("span", "answer");
    const turn = make("div", "turn");
    if (isChat) turn.append(make("p", "who", "You"), make("div", "", text), make("p", "who", model), answer);
    else turn.append(make("span", "prompt", text), answer), this.log.replaceChildren();
    this.log.append(turn);
    this.#stuck = true;
    this.#follow();
    answer.setAttribute("aria-busy", "true");
    this.token.hidden = !$("logprobs").checked;
    this.token.textContent = "";

    const began = performance.now();
    const figures = { tokens: 0, first: 0, last: 0, end: "" };
    const tell = () => this.#tell(figures, settings);
    const note = (className, text) => turn.append(make("p", className, text));
    let waiting = []; // Tokens whose text has not come yet: parts of a character, or of what could be a stop.
    let shown = 0;
    let problem = null;
    this.stats.textContent = "Waiting for the first token…";
    try {
      const from = this.from;
      const response = await this.#ask(text, settings, signal);
      if (this.from > from) {
        note(
          "note",
          `The window is full: the model no longer sees ${count(this.from, "turn")} at the beginning.`,
        );
        turn.append(answer);
      }
      for await (const { choices: [choice], usage } of events(response)) {
        if (usage) figures.tokens = usage.completion_tokens;
        if (!choice) continue;
        const now = performance.now() - began;
        const piece = choice.text ?? choice.delta.content ?? "";
        waiting.push(...scored(choice.logprobs));
        if (choice.text !== undefined || piece || choice.logprobs) {
          figures.tokens++;
          figures.first ||= now;
          figures.last = now;
        }
        if (choice.finish_reason) figures.end = choice.finish_reason;
        if (piece) this.#write(answer, piece, waiting), waiting = [];
        if (now - shown > 200) shown = now, tell();
      }
    } catch (error) {
      if (signal.aborted) figures.end = "abort";
      else problem = error;
    }
    answer.removeAttribute("aria-busy");
    const written = answer.textContent;
    if (isChat && written) turns.push({ said: text, answer: written });
    tell();
    if (problem) {
      note("note bad", explain(problem));
      if (!written) {
        this.stats.textContent = "No answer";
        turn.classList.add("failed"); // Until the next one.
      }
      if (problem.status === 401) openKey(explain(problem));
      if (problem.status === 404) loadModels();
    } else if (!written) note("note", figures.end === "abort" ? "Stopped." : "Nothing: the text ends here.");
    this.#follow();
    const outcome = problem ? explain(problem) : written || "nothing";
    return {
      said: `${model}: ${outcome}${figures.end === "abort" ? " (stopped)" : ""}`,
      failed: problem && !written,
    };
  }

  #write(answer, piece, tokens) {
    if (tokens.length === 0) {
      if (answer.lastChild?.nodeType === Node.TEXT_NODE) answer.lastChild.appendData(piece);
      else answer.append(piece);
    } else {
      const span = make("span", "scored", piece);
      span.style.setProperty("--odd", 1 - Math.exp(Math.min(...tokens.map(({ logProb }) => logProb))));
      this.#details.set(span, tokens);
      answer.append(span);
    }
    this.#follow();
  }

  /** Keeps the newest line in sight, unless the reader has gone elsewhere. */
  #follow() {
    if (this.following) return;
    this.following = true;
    requestAnimationFrame(() => {
      this.following = false;
      if (this.#stuck) this.log.scrollTop = this.log.scrollHeight;
    });
  }

  #tell({ tokens, first, last, end }, { max_tokens, seed }) {
    const parts = [];
    if (first) {
      parts.push(
        `first token ${first < 1000 ? `${Math.round(first)} ms` : `${rough.format(first / 1000)} s`}`,
      );
    }
    // Over the whole time: tokens that come in bursts would look quicker than they were.
    if (tokens > 1) parts.push(`${rough.format(1000 * tokens / last)} tokens/s`);
    if (tokens) parts.push(count(tokens, "token"));
    if (end) {
      const words = { stop: "ended", length: `cut at ${max_tokens}`, abort: "stopped" };
      parts.push(words[end] ?? end, `seed ${seed}`);
    }
    this.stats.textContent = parts.join(" · ");
  }

  /** Says how likely a token was, and what else could have come. */
  #point(span) {
    const tokens = this.#details.get(span);
    if (!tokens) return;
    this.log.querySelector(".on")?.classList.remove("on");
    span.classList.add("on");
    this.token.hidden = false;
    this.token.textContent = tokens.map(({ token, logProb, others }) => {
      const rest = others.filter(([name]) => name !== token).slice(0, 4);
      const likely = rest.map(([name, logProb]) => `${quote(name)} ${percent(logProb)}`).join(", ");
      return `${quote(token)} ${percent(logProb)}${likely && ` · else ${likely}`}`;
    }).join("; ");
  }

  /** The arrows go from token to token. */
  #step(event) {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const spans = [...this.log.querySelectorAll(".scored")];
    if (!by || spans.length === 0) return;
    event.preventDefault();
    const at = spans.findIndex((span) => span.classList.contains("on"));
    const span = spans.at(at < 0 ? (by > 0 ? 0 : -1) : Math.min(Math.max(at + by, 0), spans.length - 1));
    this.#point(span);
    span.scrollIntoView({ block: "nearest" });
  }
}

/** Tokens with their log-probabilities and what else was likely, as completions or chats write them. */
function scored(logprobs) {
  if (!logprobs) return [];
  if (logprobs.content) {
    return logprobs.content.map(({ token, logprob, top_logprobs }) => ({
      token,
      logProb: logprob,
      others: top_logprobs.map(({ token, logprob }) => [token, logprob]),
    }));
  }
  return logprobs.tokens.map((token, i) => ({
    token,
    logProb: logprobs.token_logprobs[i] ?? 0,
    others: Object.entries(logprobs.top_logprobs?.[i] ?? {}).sort(([, a], [, b]) => b - a),
  }));
}

const quote = (token) => JSON.stringify(token).replaceAll(" ", "\u00a0");

function percent(logProb) {
  const p = 100 * Math.exp(logProb);
  return p < 0.01 ? "under 0.01 %" : `${rough.format(p)} %`;
}

// ---- The models ----

let models = [];
let isLoading = false;

/** Shows what the server has; where it has nothing yet, tries until it does. */
async function loadModels() {
  if (isLoading) return;
  isLoading = true;
  const state = (kind, text) => {
    $("state").dataset.kind = kind;
    if ($("state").textContent !== text) $("state").textContent = text;
  };
  for (let done = false; !done;) {
    let pause = 2;
    try {
      if (models.length === 0) {
        await ask("readyz").catch(({ status }) =>
          status === 503 && state("wait", "The model is being loaded…")
        );
      }
      const { data } = await (await ask("v1/models")).json();
      const adapters = data.filter(({ parent }) => parent).length;
      state("", `${data[0].id}, ${adapters ? count(adapters, "adapter") : "no adapters"}`);
      $("key-open").hidden = !key.get();
      setModels(data);
      done = true;
    } catch (error) {
      done = error.status === 401;
      pause = error.retryAfter || 5;
      state("bad", explain(error) + (done ? "" : ` Trying again every ${count(pause, "second")}.`));
      if (done) openKey(explain(error));
    }
    if (!done) await new Promise((resolve) => setTimeout(resolve, 1000 * pause));
  }
  isLoading = false;
}

function setModels(data) {
  const isFirst = models.length === 0;
  if (JSON.stringify(data) === JSON.stringify(models)) return;
  models = data;
  const adapters = data.filter(({ parent }) => parent);
  sides.forEach((side, i) => {
    const chosen = side.model;
    side.select.replaceChildren(...data.map(({ id, parent }) => {
      const option = new Option(parent ? id : `${id} (base)`, id);
      option.selected = isFirst ? id === (i ? adapters[0] : data[0])?.id : id === chosen;
      return option;
    }));
  });
  if (isFirst) $("compare").checked = adapters.length > 0;
  $("count").textContent = `(${data.length})`;
  $("filter").hidden = data.length < 8;
  showSides();
}

const LISTED = 200; // A thousand buttons help nobody.

function showList() {
  const wanted = $("filter").value.trim().toLowerCase();
  const found = models.filter(({ id }) => id.toLowerCase().includes(wanted));
  const open = sides.filter((side) => !side.root.hidden);
  const focused = document.activeElement?.dataset.model;
  $("list").replaceChildren(
    ...found.slice(0, LISTED).map(({ id, parent }) => {
      const where = open.filter(({ model }) => model === id).map(({ place }) => place.toLowerCase());
      const name = make("button", where.length ? "shown" : "", id);
      const mark = [...(parent ? [] : ["base"]), ...(open.length > 1 ? where : where.map(() => "shown"))]
        .join(", ");
      name.append(" ", make("span", "", mark));
      name.type = "button";
      name.dataset.model = id;
      name.title = `Show it on the ${open.at(-1).place.toLowerCase()} side`;
      return make("li", "", name);
    }),
  );
  if (focused) {
    [...$("list").querySelectorAll("button")].find(({ dataset }) => dataset.model === focused)?.focus();
  }
  const rest = found.length - LISTED;
  $("more").hidden = rest <= 0 && found.length > 0;
  $("more").textContent = found.length
    ? `${number.format(rest)} more; find them by name.`
    : "None has such a name.";
}

function showSides() {
  sides[1].root.hidden = !$("compare").checked;
  sides[0].root.querySelector(".place").textContent = $("compare").checked ? "Left model" : "Model";
  showList();
}

// ---- The page ----

let controller = null;
const drafts = { chat: "", prompt: "" };
const sides = [new Side("Left"), new Side("Right")];
const open = () => sides.filter((side) => !side.root.hidden);

function showMode() {
  const isChat = mode() === "chat";
  $("text-label").textContent = isChat ? "Your message" : "Prompt, to be continued";
  for (const { log } of sides) {
    log.dataset.empty = isChat ? "Nothing said yet." : "The prompt and how it goes on will be here.";
  }
  $("text").required = isChat; // No prompt is one too: the beginning of a text.
  $("clear").hidden = !isChat || !sides.some(({ log }) => log.firstChild);
}

async function send() {
  if (controller) return;
  if (models.length === 0) {
    announce("There is no model to ask yet.");
    return loadModels();
  }
  const text = $("text").value;
  const asked = mode();
  controller = new AbortController();
  $("send").setAttribute("aria-disabled", "true");
  $("stop").hidden = false;
  if (asked === "chat") $("text").value = "";
  announce("Sent.");
  const settings = sampling();
  const done = Promise.all(open().map((side) => side.send(text, settings, controller.signal)));
  showMode();
  const outcomes = await done;
  controller = null;
  if (document.activeElement === $("stop")) $("text").focus();
  $("stop").hidden = true;
  $("send").removeAttribute("aria-disabled");
  announce(outcomes.map(({ said }) => said).join("\n"));
  // What nobody answered is there to be sent again.
  if (
    asked === "chat" && mode() === "chat" && $("text").value === "" && outcomes.every(({ failed }) => failed)
  ) {
    $("text").value = text;
  }
}

const stop = () => controller?.abort();
const announce = (text) => $("announce").textContent = text;

function openKey(why) {
  $("key-open").hidden = false;
  $("key-why").textContent = why;
  if ($("key").open) return;
  $("key-text").value = "";
  $("key").showModal();
}

async function copyCurl() {
  const [path, body] = open()[0].request($("text").value, sampling());
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const parts = [`curl ${quoted(new URL(path, location.href).href)}`, "-H 'content-type: application/json'"];
  if (key.get()) parts.push('-H "authorization: Bearer $WHET_API_KEY"');
  parts.push(`-d ${quoted(JSON.stringify(body))}`);
  await navigator.clipboard.writeText(parts.join(" \\\n  "));
  announce("Copied.");
  $("curl").textContent = "Copied";
  setTimeout(() => $("curl").textContent = "Copy as curl", 2000);
}

function showRanges() {
  for (const id of RANGES) {
    document.querySelector(`output[for=${id}]`).textContent = Number($(id).value).toFixed(2);
  }
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
// A field with a wrong value can only be pointed at where it is to be seen.
document.addEventListener("invalid", ({ target }) => {
  const details = target.closest("details");
  if (details) details.open = true;
}, true);
document.addEventListener("keydown", (event) => {
  if ($("key").open || event.isComposing) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    $("composer").requestSubmit();
  }
  if (event.key === "Escape" && controller) {
    event.preventDefault();
    stop();
  }
});
$("stop").addEventListener("click", stop);
$("clear").addEventListener("click", () => {
  stop();
  for (const side of sides) side.clear();
  showMode();
  $("text").focus();
});
let shownMode = mode();
for (const radio of document.querySelectorAll("[name=mode]")) {
  radio.addEventListener("change", () => {
    stop();
    drafts[shownMode] = $("text").value;
    shownMode = mode();
    $("text").value = drafts[shownMode];
    for (const side of sides) side.switchMode();
    showMode();
  });
}
$("compare").addEventListener("change", showSides);
for (const id of RANGES) $(id).addEventListener("input", showRanges);
$("stops").addEventListener("input", () => {
  $("stops").setCustomValidity(stops().length > 4 ? "Four lines at most." : "");
});
$("reset").addEventListener("click", () => {
  for (const field of $("settings").querySelectorAll("input, textarea")) {
    field.value = field.defaultValue;
    field.checked = field.defaultChecked;
    field.setCustomValidity("");
  }
  showRanges();
  announce("All settings are as they were.");
});
$("list").addEventListener("click", ({ target }) => {
  const name = target.closest("button")?.dataset.model;
  if (!name) return;
  const side = open().at(-1);
  side.select.value = name;
  announce(`${name} is on the ${side.place.toLowerCase()} side.`);
  showList();
});
$("filter").addEventListener("input", showList);
$("refresh").addEventListener("click", async () => {
  await loadModels();
  announce(count(models.length, "model"));
});
$("key-open").addEventListener("click", () => openKey("This server answers only to those who have its key."));
$("key-cancel").addEventListener("click", () => $("key").close());
$("key-form").addEventListener("submit", (event) => {
  const value = $("key-text").value.trim();
  if (/[^\x21-\x7e]/.test(value)) {
    event.preventDefault();
    $("key-why").textContent =
      "No key has such characters: it is made of letters, digits and signs without spaces.";
    return;
  }
  key.set(value);
  $("key-text").value = "";
  loadModels();
});
if (navigator.clipboard) {
  $("curl").hidden = false;
  $("curl").addEventListener("click", copyCurl);
}

const wide = matchMedia("(min-width: 62rem)");
const fold = () => $("settings").open = $("models").open = wide.matches;
wide.addEventListener("change", fold);
fold();
showRanges();
showMode();
showSides();
loadModels();
// Adapters come and go; whoever comes back to the page sees what there is.
setInterval(() => document.hidden || controller || models.length === 0 || loadModels(), 30_000);
addEventListener("focus", () => models.length > 0 && loadModels());
