/** Everything that the backend calls. */
export { adamw, clipFactor } from "./optimizer";
export { add, dropout, fill, gelu, geluBackward } from "./elementwise";
export { addToRows, embedding, gather } from "./embedding";
export { attention, attentionScratch } from "./attention";
export { attentionBackward, attentionBackwardScratch } from "./attention_backward";
export { storeKeysValues } from "./cache";
export {
  cachedAttention,
  cachedAttentionScratch,
  cachedRows,
  cachedRowsScratch,
} from "./cached_attention";
export {
  disentangledAttention,
  disentangledAttentionScratch,
  packPositions,
  positionsBytes,
} from "./disentangled_attention";
export { dotsBytes, dotsHeight, dotsOf, dotsRow, dotsRows, dotsScratch, matmulDots, rowDots } from "./dots";
export { crossEntropy } from "./loss";
export { layerNorm, layerNormBackward, layerNormWeightGradient } from "./norm";
export { lowRankRows, lowRankRowsScratch } from "./low_rank";
export { constantsEnd, pages } from "./memory";
export { matmul, matmulRows, matmulScratch } from "./matmul";
export { measureRows } from "./codes";
export {
  matmulNibbles,
  nibbleBytes,
  nibbleHeight,
  nibbleRow,
  nibbleRows,
  nibbleScratch,
  rowNibbles,
} from "./nibbles";
export {
  activationBytes,
  matmulRounded,
  roundedRows,
  roundedScratch,
  roundRow,
  roundRows,
  rowRounded,
} from "./quantized";
export {
  packedBytes,
  packPanels,
  packScratch,
  packStored,
  unpackPanels,
  unpackStored,
} from "./weights";
export { sample, sampleScratch } from "./sample";
export { squareParts, sumParts, sumRows } from "./reduce";
