/**
 * What a study finds: figures, curves, answers.
 *
 * @module
 */
import type { LossPoint } from "./series.ts";

/** A held-out question and what both models answer. */
export interface StudyAnswer {
  /** The transcript up to the answer. */
  prompt: string;
  /** The plain model's answer. */
  base: string;
  /** The fine-tuned model's answer. */
  tuned: string;
  /** The data's own answer. */
  reference?: string;
  /** The reward model's score of the plain model's answer. */
  scoreBase?: number;
  /** The reward model's score of the fine-tuned model's answer. */
  scoreTuned?: number;
}

/** What a reward model thinks of all answers. */
export interface StudyScores {
  /** The reward model's name. */
  judge: string;
  /** How many pairs of answers were scored. */
  pairs: number;
  /** Mean score of the plain model's answers. */
  meanBase: number;
  /** Mean score of the fine-tuned model's answers. */
  meanTuned: number;
  /** Mean of the paired differences, tuned less plain. */
  difference: number;
  /** Confidence interval of that mean. */
  interval: [low: number, high: number];
  /** The interval's level [0.95]. */
  level?: number;
  /** Resamples of the bootstrap that the interval is from. */
  resamples?: number;
  /** Questions whose tuned answer scored higher. */
  wins: number;
  /** Questions with equal scores. */
  ties: number;
  /** Questions whose tuned answer scored lower. */
  losses: number;
  /** Two-sided p-value of the sign test. */
  signTest?: number;
}

/** Everything that a report tells. */
export interface StudyResult {
  /** The model that was fine-tuned. */
  model: string;
  /** The adapter's name, where one was given and nothing was trained. */
  adapter?: string;
  /** The data, in a phrase: "450 dialogues, 60 others held out". */
  data: string;
  /** Mean loss of the plain model on held-out data, in nats per token. */
  lossBase: number;
  /** The same of the fine-tuned model. */
  lossTuned: number;
  /** The plain model's perplexity. */
  perplexityBase: number;
  /** The fine-tuned model's perplexity. */
  perplexityTuned: number;
  /** How many tokens of held-out data the losses are means of. */
  evalTokens?: number;
  /** Training loss of each step. */
  points: LossPoint[];
  /** Loss on held-out data now and then; step 0 is the plain model. */
  evalPoints: LossPoint[];
  /** Questions and answers. */
  answers: StudyAnswer[];
  /** The reward model's verdict, if there was one. */
  scores?: StudyScores;
  /** Everything that was set, by name. */
  settings: Record<string, string | number>;
  /** The study beside the one that Whet repeats, where that was asked for. */
  comparison?: { what: string; original?: string; here: string }[];
  /** How many parameters the adapter has. */
  parametersTrained: number;
  /** How many the model has. */
  parametersTotal: number;
  /** Training's pace; 0 where nothing was trained. */
  tokensPerSecond: number;
  /** How long the whole study took: the work that is in it, not what an interruption undid. */
  seconds: number;
  /** The same of each part. */
  times?: Record<string, number>;
  /** What it ran on. */
  environment: {
    /** Whet's version. */
    whet: string;
    /** Deno's version. */
    deno: string;
    /** The backend, in words. */
    backend: string;
    /** The processor or graphics card. */
    device?: string;
  };
}
