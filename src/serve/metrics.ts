/**
 * What a server counts, in Prometheus' text format (https://prometheus.io/docs/instrumenting/exposition_formats/).
 *
 * @module
 */

/** Upper bounds of the histograms' buckets, in seconds. */
const BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

/** A distribution of durations. */
class Histogram {
  readonly #counts = new Array<number>(BUCKETS.length).fill(0);
  #sum = 0;
  #count = 0;

  add(seconds: number): void {
    this.#sum += seconds;
    this.#count++;
    const bucket = BUCKETS.findIndex((most) => seconds <= most);
    if (bucket >= 0) this.#counts[bucket]++;
  }

  lines(name: string): string[] {
    let below = 0;
    return [
      ...BUCKETS.map((most, i) => `${name}_bucket{le="${most}"} ${below += this.#counts[i]}`),
      `${name}_bucket{le="+Inf"} ${this.#count}`,
      `${name}_sum ${this.#sum}`,
      `${name}_count ${this.#count}`,
    ];
  }
}

/** Counters and distributions of a server's life. */
export class Metrics {
  readonly #requests = new Map<string, number>();
  /** Seconds from a request to its first token. */
  readonly firstToken: { add(seconds: number): void } = new Histogram();
  /** Seconds from a request to its end. */
  readonly duration: { add(seconds: number): void } = new Histogram();

  /**
   * Counts a request.
   *
   * @param route Which of the server's routes.
   * @param status How it was answered.
   */
  count(route: string, status: number): void {
    const labels = `route="${route}",status="${status}"`;
    this.#requests.set(labels, (this.#requests.get(labels) ?? 0) + 1);
  }

  /**
   * The page that Prometheus reads.
   *
   * @param values Other values by name: `_total` for what only grows.
   */
  text(values: Readonly<Record<string, number>>): string {
    const lines = ["# TYPE whet_requests_total counter"];
    for (const [labels, count] of this.#requests) lines.push(`whet_requests_total{${labels}} ${count}`);
    for (const [name, value] of Object.entries(values)) {
      lines.push(`# TYPE ${name} ${name.endsWith("_total") ? "counter" : "gauge"}`, `${name} ${value}`);
    }
    for (
      const [name, histogram] of Object.entries({ first_token: this.firstToken, request: this.duration })
    ) {
      const full = `whet_${name}_seconds`;
      lines.push(`# TYPE ${full} histogram`, ...(histogram as Histogram).lines(full));
    }
    return lines.join("\n") + "\n";
  }
}
