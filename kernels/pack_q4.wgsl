// Codes 0 … 15 with a scale and a minimum. Each column of a group begins with its range in 15 steps; then
// scale and minimum are fitted to the codes by least squares, and the codes chosen anew. Of all rounds the
// one that errs least is kept.
//#import half
//#import pack

const WIDTH = 8u;
// Rounds of fitting.
const FITS = 3u;

@group(0) @binding(2) var<storage, read_write> weight: array<u32>;
@group(0) @binding(3) var<storage, read_write> scales: array<vec4u>;

struct Fit {
  scale: vec4f,
  minimum: vec4f,
}

fn codes(w: vec4f, fit: Fit) -> vec4f {
  let steps = clamp(round((w - fit.minimum) / fit.scale), vec4f(), vec4f(15));
  return select(steps, vec4f(), fit.scale == vec4f());
}

fn fitGroup(row: u32, count: u32, column: u32) -> Fit {
  var low = source4(row, column);
  var high = low;
  for (var r = row + 1; r < row + count; r++) {
    let w = source4(r, column);
    low = min(low, w);
    high = max(high, w);
  }
  var fit = Fit((high - low) / 15, low);
  var best: Fit;
  var least = vec4f(3.4e38);
  let n = f32(count);
  for (var round = 0u; round <= FITS; round++) {
    fit = Fit(nearestHalf(fit.scale), nearestHalf(fit.minimum));
    var error = vec4f();
    // Sums of codes, of their squares, of numbers above the lowest, of their products with codes.
    var sumC = vec4f();
    var sumCC = vec4f();
    var sumX = vec4f();
    var sumCX = vec4f();
    for (var r = row; r < row + count; r++) {
      let w = source4(r, column);
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

fn pack(row: u32, count: u32, column: u32) {
  //#for h in 0..2
  let fit$h = fitGroup(row, count, column + 4 * $h);
  //#end
  for (var r = row; r < row + count; r++) {
    var word = 0u;
    //#for h in 0..2
    let nibbles$h = vec4u(codes(source4(r, column + 4 * $h), fit$h)) << vec4u(0, 4, 8, 12);
    word |= (nibbles$h.x | nibbles$h.y | nibbles$h.z | nibbles$h.w) << (16 * $h);
    //#end
    weight[((p.row + r) * p.stride + column) / 8] = word;
  }
  //#for h in 0..2
  scales[((p.row + row) / 32 * p.stride + column) / 4 + $h] = vec4u(
    //#for j in 0..4
    pack2x16float(vec2f(fit$h.scale[$j], fit$h.minimum[$j])),
    //#end
  );
  //#end
}
