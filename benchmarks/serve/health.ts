/**
 * A worker that asks a server whether it is alive, undisturbed by what the other clients do. It is told the address, and
 * later to stop; then it tells what it has seen.
 *
 * @module
 */

/** What was seen. */
export interface Health {
  /** Checks made. */
  checks: number;
  /** Those that were not answered with "ok" in a second. */
  failed: number;
  /** Milliseconds in which 99 of 100 were answered. */
  p99: number;
  /** The longest. */
  longest: number;
}

/** Milliseconds between two checks, and that one may take. */
const EVERY = 50, WITHIN = 1000;

const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<string | null>) => void;
  postMessage: (health: Health) => void;
  close: () => void;
};
let over = false;

scope.onmessage = ({ data: url }) => {
  if (url === null) over = true;
  else watch(url);
};

async function watch(url: string): Promise<void> {
  const times: number[] = [];
  let failed = 0;
  while (!over) {
    const begin = performance.now();
    const answer = await fetch(`${url}/healthz`).then((response) => response.text(), () => "");
    times.push(performance.now() - begin);
    if (answer !== "ok\n" || times.at(-1)! > WITHIN) failed++;
    await new Promise((go) => setTimeout(go, EVERY));
  }
  times.sort((a, b) => a - b);
  const p99 = times[Math.floor(times.length * 0.99)];
  scope.postMessage({ checks: times.length, failed, p99, longest: times.at(-1)! });
  scope.close();
}
