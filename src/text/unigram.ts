/**
 * The tokenizer of DeBERTa-v3 and its kin: Unigram, from tokenizer.json or spm.model.
 *
 * @module
 */
export { loadUnigramTokenizer, type UnigramFiles } from "./unigram_load.ts";
export { type PairEncoding, UnigramTokenizer } from "./unigram_tokenizer.ts";
