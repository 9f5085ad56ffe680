// Codes 0 … 15 with a scale and a minimum. Each group begins with its range in 15 steps; then scale and minimum
// are fitted to the codes by least squares, and the codes chosen anew. Of all rounds the one that errs least is
// kept.
//#import half
//#import pack_groups

// Rounds of fitting.
const FITS = 3u;

@group(0) @binding(2) var<storage, read_write> weight: array<u32>;
@group(0) @binding(3) var<storage, read_write> scales: array<u32>;

struct Fit {
  scale: vec4f,
  minimum: vec4f,
}

fn codes(w: vec4f, fit: Fit) -> vec4f {
  let steps = clamp(round((w - fit.minimum) / fit.scale), vec4f(), vec4f(15));
  return select(steps, vec4f(), fit.scale == vec4f());
}

fn fitGroups(row: u32, column: u32) -> Fit {
  let length = groupLength(row, column);
  var low = member(row, column, 0);
  var high = low;
  for (var i = 1u; i < length; i++) {
    let w = member(row, column, i);
    low = min(low, w);
    high = max(high, w);
  }
  var fit = Fit((high - low) / 15, low);
  var best: Fit;
  var least = vec4f(3.4e38);
  let n = f32(length);
  for (var round = 0u; round <= FITS; round++) {
    fit = Fit(nearestHalf(fit.scale), nearestHalf(fit.minimum));
    var error = vec4f();
    // Sums of codes, of their squares, of numbers above the lowest, of their products with codes.
    var sumC = vec4f();
    var sumCC = vec4f();
    var sumX = vec4f();
    var sumCX = vec4f();
    for (var i = 0u; i < length; i++) {
      let w = member(row, column, i);
      let c = codes(w, fit);
      let miss = w - (fit.scale * c + fit.minimum);
      error += miss * miss;
      sumC += c;
      sumCC += c * c;
      sumX += w - low;
      sumCX += c * (w - low);
    }
    let better = error < least;
    least = select(least, error, better);
    best = Fit(select(best.scale, fit.scale, better), select(best.minimum, fit.minimum, better));
    let determinant = n * sumCC - sumC * sumC;
    let solvable = determinant > vec4f();
    let scale = select(fit.scale, (n * sumCX - sumC * sumX) / determinant, solvable);
    fit = Fit(scale, select(fit.minimum, low + (sumX - scale * sumC) / n, solvable));
  }
  return best;
}

// A scale and a minimum, halves in one word.
fn pair(fit: Fit, j: u32) -> u32 {
  return pack2x16float(vec2f(fit.scale[j], fit.minimum[j]));
}

fn pack(row: u32, column: u32) {
//#if AXIS
  let fit = fitGroups(row, column);
  let rows = min(p.rows - row, 4);
  for (var i = 0u; i < min(p.stride - column, 32); i += 8) {
    var words = vec4u();
    //#for k in 0..8
    words |= vec4u(codes(member(row, column, i + $k), fit)) << vec4u(4 * $k);
    //#end
    for (var j = 0u; j < rows; j++) {
      weight[((p.row + row + j) * p.stride + column + i) / 8] = words[j];
    }
  }
  for (var j = 0u; j < rows; j++) {
    scales[(p.row + row + j) * groupsAcross() + column / 32] = pair(fit, j);
  }
//#else
  // A word has eight columns: two times four groups.
  //#for h in 0..2
  let fit$h = fitGroups(row, column + 4 * $h);
  //#end
  for (var i = 0u; i < groupLength(row, column); i++) {
    var word = 0u;
    //#for h in 0..2
    let nibbles$h = vec4u(codes(member(row, column + 4 * $h, i), fit$h)) << vec4u(0, 4, 8, 12);
    word |= (nibbles$h.x | nibbles$h.y | nibbles$h.z | nibbles$h.w) << (16 * $h);
    //#end
    weight[((p.row + row + i) * p.stride + column) / 8] = word;
  }
  for (var j = 0u; j < 4; j++) {
    //#for h in 0..2
    scales[(p.row + row) / 32 * groupsAcross() + column + 4 * $h + j] = pair(fit$h, j);
    //#end
  }
//#end
}
