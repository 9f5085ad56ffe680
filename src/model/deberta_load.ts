/**
 * Builds a DeBERTa reward model in a backend's memory, from files.
 *
 * @module
 */
import { type Checkpoint, openCheckpoint } from "../format/checkpoint.ts";
import { parseJsonObject } from "../format/json.ts";
import { openRepository } from "../format/source.ts";
import { WhetError } from "../errors.ts";
import type { Backend } from "../tensor/backend.ts";
import type { Matrix, WeightFormat } from "../tensor/tensor.ts";
import { loadUnigramTokenizer, type UnigramTokenizer } from "../text/unigram.ts";
import { debertaShapes } from "./deberta.ts";
import { type DebertaConfig, parseDebertaConfig } from "./deberta_config.ts";
import { type PlacedDeberta, placeDeberta } from "./deberta_place.ts";
import { debertaMemoryNeed } from "./deberta_memory.ts";
import { checkFormat, type LoadOptions, withBackend } from "./load.ts";
import { findParameters, type Naming, settled } from "./parameters.ts";

/** The most tokens of a pair, as DeBERTa-v3 was trained. */
const LONGEST = 512;

/** What a reward model is made of. */
export interface RewardParts {
  /** Its name, for errors. */
  name: string;
  /** Its shape. */
  config: DebertaConfig;
  /** Its tokenizer. */
  tokenizer: UnigramTokenizer;
  /** The most tokens of a pair. */
  longest: number;
  /** Where it computes. */
  backend: Backend;
  /** Whether the backend ends with the model. */
  ownsBackend: boolean;
  /** How its matrices are stored. */
  weights: WeightFormat;
  /** Its weights, in the backend's memory. */
  placed: PlacedDeberta;
}

/** What checkpoints hold beside: what pre-training left, buffers, and norms and positions that the config turned off. */
const NAMES: Naming = {
  kind: "DeBERTa",
  canonical: (stored) => stored,
  beside: /^deberta\.(embeddings\.(position_ids$|position_embeddings\.)|encoder\.LayerNorm\.)/,
  own: /^(deberta|pooler|classifier)\./,
};

/**
 * Loads a Hugging Face DebertaV2ForSequenceClassification of one label.
 *
 * @param source A directory, an http(s) URL of one, or a Hub id.
 * @param options Backend, storage, progress.
 * @returns The model's parts.
 */
export async function loadDeberta(source: string, options: LoadOptions = {}): Promise<RewardParts> {
  checkFormat(options.weights);
  if (source === "nano") {
    throw new WhetError(
      "option",
      "nano: a language model, not a reward model; give the directory or Hub id of one",
    );
  }
  const repository = await openRepository(source, options);
  const { name } = repository;
  const where = `${name}/config.json`;
  const text = await repository.text("config.json");
  if (text === null) {
    throw new WhetError(
      "format",
      `${name}: no config.json there; give the directory of a reward model in Hugging Face's format`,
    );
  }
  const config = parseDebertaConfig(parseJsonObject(text, where), where);
  const tokenizer = await loadUnigramTokenizer(repository);
  if (tokenizer.vocabSize > config.vocab_size) {
    throw new WhetError(
      "mismatch",
      `${name}: the tokenizer has ${tokenizer.vocabSize} tokens, the model by its config.json ${config.vocab_size}; ` +
        "use the files that belong together",
    );
  }
  const longest = Math.min(LONGEST, config.max_position_embeddings);

  using checkpoint: Checkpoint = await openCheckpoint(repository);
  const found = findParameters(checkpoint, debertaShapes(config), name, NAMES);
  const { weights = "f32", signal } = options;
  return await withBackend(options, async (backend, ownsBackend) => {
    await backend.admit?.(debertaMemoryNeed(name, config, weights, longest));
    const owned: Matrix[] = [];
    try {
      const placed = await placeDeberta({
        ...{ backend, config, weights, tokenizer, longest },
        ...{ checkpoint, found, owned, signal },
      });
      await settled(backend);
      return { name, config, tokenizer, longest, backend, ownsBackend, weights, placed };
    } catch (error) {
      for (const matrix of owned) backend.free(matrix);
      throw error;
    }
  });
}
