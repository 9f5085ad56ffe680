/**
 * Which sentence would the model rather say? Prints each one's perplexity, and the token that surprised it most:
 * `deno run examples/score.ts nano "The cat says meow." "The cat says moo."`
 */
import { GPT2 } from "../mod.ts";

const [source, ...sentences] = Deno.args;
if (sentences.length === 0) throw new Error("usage: score.ts MODEL SENTENCE...");

using model = await GPT2.load(source);
const { tokenizer } = model;
// What begins a text has a probability too, after the token that ends another.
const sequences = sentences.map((sentence) => tokenizer.encode(`<|endoftext|>${sentence}`));
for (const [i, logProbs] of (await model.logProbs(sequences)).entries()) {
  const perplexity = Math.exp(-logProbs.reduce((sum, logProb) => sum + logProb, 0) / logProbs.length);
  const surprise = logProbs.indexOf(logProbs.toSorted()[0]);
  const token = tokenizer.decode([sequences[i][surprise + 1]]);
  console.log(`${perplexity.toFixed(2)}  ${sentences[i]}  (surprised by ${JSON.stringify(token)})`);
}
