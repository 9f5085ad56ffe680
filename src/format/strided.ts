/**
 * Copies views that do not lie row by row in memory (a transposed matrix, a slice) into ones that do.
 *
 * @module
 */

/** A stretch of elements seen as a tensor: element (i, j, …) lies at i · strides[0] + j · strides[1] + …. */
export interface StridedView {
  /** Its extents, outermost first. */
  readonly shape: readonly number[];
  /** Elements between neighbours along each axis; no two elements may lie in the same place. */
  readonly strides: readonly number[];
  /** Bytes of an element: 1, 2, 4 or 8. */
  readonly itemSize: number;
}

/** So many bytes are held at a time. */
const WINDOW = 2 ** 20;

/** Whether the view's elements lie one after the other, the last axis the closest. */
export function isContiguous(shape: readonly number[], strides: readonly number[]): boolean {
  if (shape.includes(0)) return true;
  let step = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] === 1) continue;
    if (strides[axis] !== step) return false;
    step *= shape[axis];
  }
  return true;
}

/**
 * Reads a view's elements, row-major.
 *
 * The elements are visited in the order in which they are stored, so that each byte is read once at most, in
 * ascending order, through a window; they are put where they belong.
 *
 * @param view The view; it has elements.
 * @param read Reads bytes, given where they begin, from the view's first element on, and how many.
 * @param out Takes the elements; aligned to 4 bytes.
 */
export async function gather(
  view: StridedView,
  read: (begin: number, length: number) => Promise<Uint8Array<ArrayBuffer>>,
  out: Uint8Array<ArrayBuffer>,
): Promise<void> {
  // Wide elements are pairs of units, so that no bits pass through a float.
  const unit = Math.min(view.itemSize, 4), pairs = view.itemSize / unit;
  const Units = unit === 1 ? Uint8Array : unit === 2 ? Uint16Array : Uint32Array;
  const to = new Units(out.buffer, out.byteOffset, out.byteLength / unit);
  const axes = axesOf(view, pairs);
  const end = 1 + axes.reduce((sum, { extent, from }) => sum + (extent - 1) * from, 0);

  const inner = axes.pop()!;
  const index = axes.map(() => 0);
  let window = new Units(0), windowBegin = 0;
  for (let source = 0, target = 0;;) {
    for (let i = 0; i < inner.extent;) {
      const at = source + i * inner.from;
      if (at >= windowBegin + window.length) {
        const bytes = await read(at * unit, Math.min(WINDOW, (end - at) * unit));
        window = new Units(bytes.buffer, bytes.byteOffset, bytes.byteLength / unit);
        windowBegin = at;
      }
      const stop = Math.min(inner.extent, i + Math.ceil((windowBegin + window.length - at) / inner.from));
      let place = at - windowBegin;
      for (; i < stop; i++, place += inner.from) to[target + i * inner.to] = window[place];
    }
    let axis = axes.length - 1;
    for (; axis >= 0; axis--) {
      const { extent, from, to } = axes[axis];
      source += from;
      target += to;
      if (++index[axis] < extent) break;
      index[axis] = 0;
      source -= extent * from;
      target -= extent * to;
    }
    if (axis < 0) return;
  }
}

/** The axes from the farthest apart to the closest, in units; at least one. */
function axesOf(
  { shape, strides }: StridedView,
  pairs: number,
): { extent: number; from: number; to: number }[] {
  const axes = [];
  let to = pairs;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] > 1) axes.push({ extent: shape[axis], from: strides[axis] * pairs, to });
    to *= shape[axis];
  }
  axes.sort((a, b) => b.from - a.from);
  if (pairs > 1 || axes.length === 0) axes.push({ extent: pairs, from: 1, to: 1 });
  return axes;
}
