/**
 * Learning-rate schedules.
 *
 * @module
 */

/** How the learning rate goes on after warm-up. */
export type Schedule = "constant" | "linear" | "cosine";

/** The schedules' names. */
export const SCHEDULES: readonly Schedule[] = ["constant", "linear", "cosine"];

/**
 * The factor on the peak learning rate, as transformers' schedules have it: it rises linearly from 0
 * over the warm-up, then stays, falls linearly to 0, or falls to 0 along half a cosine.
 *
 * @param schedule Its name.
 * @param step The step, from 0.
 * @param warmupSteps Steps of warm-up.
 * @param steps Steps in all.
 * @returns A factor from 0 to 1.
 */
export function scheduleFactor(schedule: Schedule, step: number, warmupSteps: number, steps: number): number {
  if (step < warmupSteps) return step / warmupSteps;
  const progress = Math.min(1, (step - warmupSteps) / Math.max(1, steps - warmupSteps));
  switch (schedule) {
    case "constant":
      return 1;
    case "linear":
      return 1 - progress;
    case "cosine":
      return 0.5 * (1 + Math.cos(Math.PI * progress));
  }
}
