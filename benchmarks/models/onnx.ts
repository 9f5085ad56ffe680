/**
 * Writes ONNX files: the few messages of onnx.proto that a graph of standard operators takes, in protocol
 * buffers' wire format.
 *
 * @module
 */

/** Bytes in pieces, so that weights are not copied. */
type Message = Uint8Array[];

/** What an element is, by TensorProto.DataType's numbers. */
export const ELEMENT = { float: 1, int64: 7 } as const;

/** An attribute of a node. */
export type Attribute = number | string | readonly number[] | { float: number };

/** An input or output of a graph: a name for each extent that is not known beforehand. */
export interface Port {
  /** Its name. */
  name: string;
  /** Its elements. */
  type: keyof typeof ELEMENT;
  /** Its extents. */
  shape: readonly (number | string)[];
}

/** A graph in the making: nodes in the order in which they are added. */
export class Graph {
  readonly #parts: Message[] = [];
  #names = 0;

  /**
   * @param inputs What it is given.
   * @param outputs What it gives.
   */
  constructor(private readonly inputs: readonly Port[], private readonly outputs: readonly Port[]) {}

  /**
   * Adds a node.
   *
   * @param operator Its operator.
   * @param inputs Names of its inputs.
   * @param attributes Its attributes; whole numbers are ints, `{ float }` a float.
   * @param outputs Names of its outputs [one new name].
   * @returns The first output's name.
   */
  add(
    operator: string,
    inputs: readonly string[],
    attributes: Record<string, Attribute> = {},
    outputs: readonly string[] = [this.name()],
  ): string {
    this.#parts.push(field(1, [
      ...inputs.flatMap((name) => text(1, name)),
      ...outputs.flatMap((name) => text(2, name)),
      ...text(4, operator),
      ...Object.entries(attributes).flatMap(([name, value]) => field(5, attribute(name, value))),
    ]));
    return outputs[0];
  }

  /**
   * Adds a constant.
   *
   * @param values Its elements.
   * @param shape Its extents.
   * @returns Its name.
   */
  constant(values: Float32Array<ArrayBuffer> | BigInt64Array<ArrayBuffer>, shape: readonly number[]): string {
    const name = this.name();
    const type = values instanceof Float32Array ? ELEMENT.float : ELEMENT.int64;
    this.#parts.push(field(5, [
      ...shape.flatMap((extent) => int(1, extent)),
      ...int(2, type),
      ...text(8, name),
      ...field(9, [new Uint8Array(values.buffer, values.byteOffset, values.byteLength)]),
    ]));
    return name;
  }

  /** A constant of whole numbers. */
  ints(...values: number[]): string {
    return this.constant(BigInt64Array.from(values, BigInt), [values.length]);
  }

  /** A name that no other value has. */
  name(): string {
    return `v${this.#names++}`;
  }

  /**
   * The file.
   *
   * @param opset The version of ONNX's operators.
   * @returns Its bytes, in pieces.
   */
  file(opset: number): Uint8Array[] {
    return [
      ...int(1, 9), // ir_version
      ...field(7, [
        ...this.#parts.flat(),
        ...text(2, "graph"),
        ...this.inputs.flatMap((input) => field(11, port(input))),
        ...this.outputs.flatMap((output) => field(12, port(output))),
      ]),
      ...field(8, int(2, opset)), // opset_import
    ];
  }
}

function port({ name, type, shape }: Port): Message {
  const extents = shape.flatMap((extent) =>
    field(1, typeof extent === "number" ? int(1, extent) : text(2, extent))
  );
  return [...text(1, name), ...field(2, field(1, [...int(1, ELEMENT[type]), ...field(2, extents)]))];
}

function attribute(name: string, value: Attribute): Message {
  const FLOAT = 1, INT = 2, STRING = 3, INTS = 7;
  const content = typeof value === "number"
    ? [...int(3, value), ...int(20, INT)]
    : typeof value === "string"
    ? [...text(4, value), ...int(20, STRING)]
    : "float" in value
    ? [...tag(2, 5), new Uint8Array(Float32Array.of(value.float).buffer), ...int(20, FLOAT)]
    : [...value.flatMap((element) => int(8, element)), ...int(20, INTS)];
  return [...text(1, name), ...content];
}

/** A message or bytes within a message. */
function field(number: number, content: Message): Message {
  return [...tag(number, 2), varint(content.reduce((sum, { length }) => sum + length, 0)), ...content];
}

function text(number: number, value: string): Message {
  return field(number, [new TextEncoder().encode(value)]);
}

function int(number: number, value: number): Message {
  return [...tag(number, 0), varint(value)];
}

function tag(number: number, wire: number): Message {
  return [varint(number << 3 | wire)];
}

function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  do {
    const more = rest > 0x7fn;
    bytes.push(Number(rest & 0x7fn) | (more ? 0x80 : 0));
    rest >>= 7n;
  } while (rest > 0n);
  return Uint8Array.from(bytes);
}
