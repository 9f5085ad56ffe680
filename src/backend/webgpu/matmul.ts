/**
 * Matrix products: which parts of the operands meet in which dispatch.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";
import type { MatmulArgs } from "../../tensor/backend.ts";
import { Tensor } from "../../tensor/tensor.ts";
import { add, gelu, isSame } from "./elementwise.ts";
import type { Gpu } from "./gpu.ts";
import { codesFit, encode } from "./matmul_codes.ts";
import { plan, VECTOR_ROWS } from "./matmul_shapes.ts";
import { temporary } from "./memory.ts";
import { type Bindings, slice } from "./slices.ts";
import type { Constants } from "./template.ts";
import { type Parts, rowRanges, rowSlice, weightParts } from "./weights.ts";

/** Bytes of shares of inner sums at most. */
const PARTIAL_BYTES = 64 << 20;

/**
 * out = activation(alpha · op(a) · op(b) + bias) + residual. Where b lies in parts, each makes some of
 * out's columns (transposed) or adds its share of the inner sums; where a or out exceed a binding, they
 * are worked through by rows.
 */
export function matmul(gpu: Gpu, args: MatmulArgs): void {
  const { a, out, transposeA = false, transposeB = false } = args;
  const [M, N] = out.shape;
  const K = a.shape[transposeA ? 0 : 1];
  if (transposeA && !(args.b instanceof Tensor)) {
    throw new WhetError("backend", `matmul (M=${M}, N=${N}, K=${K}): transposeA takes a plain b`);
  }
  const b = weightParts(gpu, args.b, transposeA && !transposeB ? M : 0);
  if (args.activation && !transposeB && b.parts.length > 1) return matmulThenActivation(gpu, args);
  const rows = transposeA ? rowRanges(gpu, M, N) : rowRanges(gpu, M, K, N);
  b.parts.forEach((_, i) => {
    for (const range of rows) product(gpu, args, b, i, range.first, range.rows);
  });
}

/** Some rows of the product with one part of b. */
function product(gpu: Gpu, args: MatmulArgs, b: Parts, part: number, m: number, M: number): void {
  const { a, out, transposeA = false, transposeB = false, bias, residual } = args;
  const N = out.shape[1];
  const { first, rows, bindings, params } = b.parts[part];
  const [k, K] = transposeB ? [0, a.shape[transposeA ? 0 : 1]] : [first, rows];
  const [column, columns] = transposeB ? [first, rows] : [0, N];
  // All but the first share of an inner sum are added to what is there.
  const continues = !transposeB && part > 0;
  const inPlace = residual !== undefined && isSame(residual, out);
  const outFactor = continues ? 1 : Number(args.accumulate ?? false) + Number(inPlace);

  const [aStride, aColumn] = transposeA ? [a.shape[1], m] : [a.shape[1], k];
  const aColumns = transposeA ? M : K;
  const wants = { bias: !continues && bias, residual: !continues && !inPlace && residual };
  const operands: Bindings = {
    ...bindings,
    a: transposeA && transposeB
      ? slice(a)
      : transposeA
      ? rowSlice(a, { first: k, rows: K })
      : rowSlice(a, { first: m, rows: M }),
  };
  const outputs: Bindings = {
    out: rowSlice(out, { first: m, rows: M }),
    bias: wants.bias ? slice(wants.bias) : undefined,
    residual: wants.residual ? rowSlice(wants.residual, { first: m, rows: M }) : undefined,
  };
  const { shapes, arithmetic } = gpu.products;
  const format = String(b.variant.FORMAT);
  const quads = M * Math.ceil(columns / 4);
  const mostSplits = Math.floor(Math.min(gpu.maxBindingBytes, PARTIAL_BYTES) / (quads * 16));
  const codes = arithmetic === "i8" && M > VECTOR_ROWS && !(args.precise && format === "q8") &&
    codesFit(gpu, b, transposeB, M, K);
  const { kernel, constants, height, width, splits, depth } = plan(
    shapes,
    { M, N: columns, K, transposeA, transposeB, format, codes, mostSplits },
  );
  const values = {
    M,
    N: columns,
    K,
    ...params,
    aStride,
    aColumn,
    outStride: N,
    outColumn: column,
    alpha: args.alpha ?? 1,
    hasBias: Number(Boolean(wants.bias)),
    hasResidual: Number(Boolean(wants.residual)),
    outFactor,
    splits,
    depth,
  };
  const epilogue = {
    OUT_VECTORS: [N, column, columns].every((x) => x % 4 === 0),
    GELU: args.activation === "gelu",
  };
  const A_VECTORS = [aStride, aColumn, aColumns].every((x) => x % 4 === 0);
  const variant = { ...constants, TRANSPOSE_B: transposeB };
  const grid = [Math.ceil(columns / width), Math.ceil(M / height) * splits] as const;
  const multiply = (operands: Bindings, variant: Constants) => {
    if (splits === 1) {
      return gpu.run(kernel, { ...operands, ...outputs }, values, grid, { ...variant, ...epilogue });
    }
    temporary(gpu, [splits, quads * 4], (sums) => {
      const partials = slice(sums);
      gpu.run(kernel, { ...operands, partials }, values, grid, { ...variant, SPLIT: true });
      gpu.run("matmul_sum", { ...outputs, partials }, values, [Math.ceil(quads / 256)], epilogue);
    });
  };
  if (codes) {
    const FOUR_BITS = format === "q4";
    return encode(gpu, operands.a, { M, K, aStride, aColumn }, A_VECTORS, (encoded) => {
      multiply({ ...bindings, ...encoded }, { ...variant, FOUR_BITS });
    });
  }
  const HALVES = arithmetic === "f16" && kernel === "matmul";
  multiply(operands, { ...b.variant, ...variant, TRANSPOSE_A: transposeA, A_VECTORS, HALVES });
}

/** For inner sums in several shares: the activation comes when they are complete. */
function matmulThenActivation(gpu: Gpu, args: MatmulArgs): void {
  const { out, residual } = args;
  temporary(gpu, out.shape, (sum) => {
    matmul(gpu, { ...args, out: sum, activation: undefined, residual: undefined });
    if (!residual) return gelu(gpu, { x: sum, out });
    temporary(gpu, out.shape, (activated) => {
      gelu(gpu, { x: sum, out: activated });
      add(gpu, { a: activated, b: residual, out });
    });
  });
}
