/**
 * Where to get a tokenizer: GPT-2's own, a model directory's, or none.
 *
 * @module
 */
export { absentTokenizer } from "./absent.ts";
export { gpt2Tokenizer } from "./gpt2.ts";
export { loadTokenizer, type TextFiles } from "./load.ts";
export { saveTokenizer } from "./save.ts";
export { StreamingDecoder } from "./streaming.ts";
export { checkVocabulary, type Tokenizer } from "./tokenizer.ts";
