// What the kernels of sampling share: scores of a row's tokens, and their ranks. How a row is chosen is bound, or with SINGLE
// in Params, which spares a copy between the kernels of a token. Kernels define Params with V and words,
// and the row in `row` and `first`.

// Ranks of −∞ and ∞; beyond lie those that are not numbers.
const LOWEST = 0x007fffffu;
const INFINITE = 0xff800000u;
const LARGEST = 3.4028234e38;

struct Row {
  factor: f32, // 1 / temperature
  topK: u32, // 0: all; 1: greedy
  topP: f32,
  penalty: f32,
  draw: f32,
  slot: u32,
}

// What a stretch of a row's tokens comes to.
struct Part {
  top: u32, // the highest logit's rank; INFINITE or more if one is no number
  sum: f32, // Σ exp(logit − highest)
  highest: u32, // ranks of scores
  lowest: u32,
  token: u32, // the first with the highest score
}

//#if SINGLE
fn rowOf(n: u32) -> Row {
  return Row(p.factor, p.topK, p.topP, p.penalty, p.draw, p.slot);
}
//#else
fn rowOf(n: u32) -> Row {
  return rows[n];
}
//#end

// The row: its first logit, and how its token is chosen.
var<private> first: u32;
var<private> row: Row;

// Floats as whole numbers in the same order, neighbours being one apart; −0 is 0.
fn rankOf(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  return select(bits | 0x80000000u, ~bits, bits > 0x80000000u);
}

fn floatOf(rank: u32) -> f32 {
  return bitcast<f32>(select(~rank, rank & 0x7fffffffu, rank >= 0x80000000u));
}

// A token's score, its logit being x.
fn scored(v: u32, x: f32) -> f32 {
  if (p.words == 0 || row.penalty == 1) {
    return x;
  }
  if (((seen[row.slot * p.words + v / 32] >> (v % 32)) & 1) == 0) {
    return x;
  }
  return clamp(select(x * row.penalty, x / row.penalty, x > 0), -LARGEST, LARGEST);
}

fn scoreOf(v: u32) -> f32 {
  return scored(v, logits[first + v]);
}
