/**
 * Log-probabilities out of logits that were read back.
 *
 * @module
 */

/** A token and how likely it was. */
export interface Scored {
  /** Its id. */
  token: number;
  /** Natural log of its probability given those before it; null for a text's first. */
  logProb: number | null;
  /** The likeliest tokens in its place, the likeliest first. */
  alternatives?: { token: number; logProb: number }[];
}

/**
 * Scores a token.
 *
 * @param logits (V), of its place.
 * @param token Which.
 * @param count How many alternatives come with it.
 */
export function scoreOf(logits: Float32Array, token: number, count: number): Scored {
  let largest = -Infinity;
  for (const logit of logits) if (logit > largest) largest = logit;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - largest);
  const shift = largest + Math.log(sum);
  const scored: Scored = { token, logProb: logits[token] - shift };
  if (count > 0) {
    scored.alternatives = likeliest(logits, count).map((token) => ({
      token,
      logProb: logits[token] - shift,
    }));
  }
  return scored;
}

/** The ids of the highest logits, the highest first, of equal ones the lowest id. */
function likeliest(logits: Float32Array, count: number): number[] {
  const best: number[] = [];
  for (let id = 0; id < logits.length; id++) {
    if (best.length === count && logits[id] <= logits[best[count - 1]]) continue;
    let place = best.length;
    while (place > 0 && logits[id] > logits[best[place - 1]]) place--;
    best.splice(place, 0, id);
    if (best.length > count) best.pop();
  }
  return best;
}
