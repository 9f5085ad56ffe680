/**
 * Python's pickle format, read as data: an interpreter of the few instructions that PyTorch writes, which
 * imports nothing, calls nothing, and builds what a {@linkcode Vocabulary} gives for the names in it.
 *
 * A pickle is a program for a stack machine. Python's own may name any function there is and call it; here a
 * name means what the vocabulary says, or the file is refused.
 *
 * Source: Python's `pickletools.py`, which describes every opcode; the subset is what `torch.save` emits
 * under pickle protocols 2 to 5.
 *
 * @module
 */

import { WhetError } from "../errors.ts";
import { INST, OP, REFUSED } from "./pickle_opcodes.ts";
import { quoted } from "./quote.ts";

/** A dict or an OrderedDict. */
export type PickledDict = Map<string | number, unknown>;

/** What the names in a pickle mean. Both functions throw for what they do not know. */
export interface Vocabulary {
  /**
   * What `module.name` stands for.
   *
   * @param module Such as `torch._utils`.
   * @param name Such as `_rebuild_tensor_v2`.
   * @returns Some data, or a {@linkcode Builder}.
   */
  global(module: string, name: string): unknown;
  /**
   * What lies outside the pickle under this id.
   *
   * @param id Plain data.
   * @returns It.
   */
  persistent(id: unknown): unknown;
}

/** What a pickle may apply to arguments: a function of ours that makes data of data. */
export class Builder {
  /**
   * A function for a vocabulary.
   *
   * @param name What messages call it.
   * @param build Takes the arguments that the pickle gives, whatever they are.
   */
  constructor(readonly name: string, readonly build: (args: readonly unknown[]) => unknown) {}
}

/** The bytes ended before the pickle did. */
export class PickleCut extends WhetError {}

/** What {@linkcode unpickle} returns. */
export interface Unpickled {
  /** What the pickle builds: see {@linkcode unpickle}. */
  value: unknown;
  /** Where the bytes behind it begin. */
  end: number;
}

/**
 * So many instructions at most, which bounds time, stack, memo and the number of objects, and so memory to
 * some 150 MB. A tensor takes 33 of them: 15,000 tensors, while the largest models' shards have a few thousand.
 */
const STEPS = 500_000;
/** Unclosed marks at most; Python's own pickler gives up at a like depth. */
const DEPTH = 1000;
/** Bytes of an integer at most; PyTorch's longest is its files' magic number. */
const LONGEST_INTEGER = 16;
/** Characters of a module's or function's name at most. */
const LONGEST_NAME = 256;

/** So many bytes of a pickle of lines are looked through for names. */
const TEXT = 2 ** 16;
/** GLOBAL and INST as protocols 0 and 1 write them. */
const TEXT_GLOBAL = /[ci]([\w.]+)\n([\w.]+)\n/g;
/**
 * Reads one pickle.
 *
 * None becomes null, an int a number (a bigint beyond 2⁵³), a list an array, a tuple a frozen array, a dict a
 * Map whose keys are strings or numbers. What an object's state would be (`BUILD`) is read and dropped.
 *
 * @param bytes The pickle, and perhaps more behind it.
 * @param vocabulary What the names in it mean.
 * @param where What messages call the file.
 * @returns The value, and where the pickle ends.
 * @throws {WhetError} `format`, if it is not a pickle, is too large, or asks for what is not understood;
 * {@linkcode PickleCut}, if the bytes end before it does; and what the vocabulary throws.
 *
 * @example
 * ```ts
 * import { unpickle } from "./pickle.ts";
 *
 * const bytes = new Uint8Array([0x80, 2, 0x4b, 1, 0x4b, 2, 0x86, 0x2e]); // pickle.dumps((1, 2), 2)
 * const unknown = () => {
 *   throw new Error("no names here");
 * };
 * console.log(unpickle(bytes, { global: unknown, persistent: unknown }, "x.pkl").value); // [1, 2]
 * ```
 */
export function unpickle(bytes: Uint8Array, vocabulary: Vocabulary, where: string): Unpickled {
  return new Machine(bytes, vocabulary, where).run();
}

class Machine {
  #at = 0;
  readonly #decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  readonly #view: DataView;
  readonly #stack: unknown[] = [];
  /** Heights of the stack at its open marks. */
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, unknown>();

  constructor(readonly bytes: Uint8Array, readonly vocabulary: Vocabulary, readonly where: string) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  run(): Unpickled {
    if (this.#view.getUint8(this.#take(1)) !== OP.PROTO) {
      this.#nameWhatTextAsksFor();
      throw this.#fail("does not begin as a pickle of protocol 2 to 5 does");
    }
    const protocol = this.#view.getUint8(this.#take(1));
    if (protocol < 2 || protocol > 5) {
      throw this.#fail(`pickle protocol ${protocol} is not read; expected 2 to 5`);
    }
    for (let step = 0; step < STEPS; step++) {
      const op = this.#view.getUint8(this.#take(1));
      if (op !== OP.STOP) {
        this.#step(op);
        continue;
      }
      const value = this.#pop();
      if (this.#stack.length > 0 || this.#marks.length > 0) {
        throw this.#fail("STOP with values left over; the file is damaged");
      }
      return { value, end: this.#at };
    }
    throw this.#fail(`more than ${STEPS} instructions, far more than any model's tensors take`);
  }

  /** Protocols 0 and 1 are not read, but what such a pickle would have Python call is named all the same. */
  #nameWhatTextAsksFor(): void {
    const text = Array.from(this.bytes.subarray(0, TEXT), (byte) => String.fromCharCode(byte)).join("");
    for (const [, module, name] of text.matchAll(TEXT_GLOBAL)) this.#global(module, name);
  }

  #step(op: number): void {
    const view = this.#view, stack = this.#stack;
    switch (op) {
      case OP.NONE:
        return void stack.push(null);
      case OP.NEWTRUE:
        return void stack.push(true);
      case OP.NEWFALSE:
        return void stack.push(false);
      case OP.BININT:
        return void stack.push(view.getInt32(this.#take(4), true));
      case OP.BININT1:
        return void stack.push(view.getUint8(this.#take(1)));
      case OP.BININT2:
        return void stack.push(view.getUint16(this.#take(2), true));
      case OP.LONG1:
        return void stack.push(this.#long(view.getUint8(this.#take(1))));
      case OP.BINFLOAT:
        return void stack.push(view.getFloat64(this.#take(8), false));
      case OP.SHORT_BINUNICODE:
        return void stack.push(this.#text(view.getUint8(this.#take(1))));
      case OP.BINUNICODE:
        return void stack.push(this.#text(view.getUint32(this.#take(4), true)));
      case OP.BINUNICODE8:
        return void stack.push(this.#text(Number(view.getBigUint64(this.#take(8), true))));

      case OP.EMPTY_LIST:
        return void stack.push([]);
      case OP.APPEND:
        return this.#append([this.#pop()]);
      case OP.APPENDS:
        return this.#append(this.#popMark());
      case OP.EMPTY_TUPLE:
        return this.#tuple([]);
      case OP.TUPLE1:
      case OP.TUPLE2:
      case OP.TUPLE3:
        return this.#tuple(this.#popMany(op - OP.TUPLE1 + 1));
      case OP.TUPLE:
        return this.#tuple(this.#popMark());
      case OP.EMPTY_DICT:
        return void stack.push(new Map());
      case OP.SETITEM:
        return this.#setItems(this.#popMany(2));
      case OP.SETITEMS:
        return this.#setItems(this.#popMark());
      case OP.MARK:
        if (this.#marks.length >= DEPTH) throw this.#fail("nested deeper than any model's tensors are");
        return void this.#marks.push(stack.length);

      case OP.BINPUT:
        return void this.#memo.set(view.getUint8(this.#take(1)), this.#top());
      case OP.LONG_BINPUT:
        return void this.#memo.set(view.getUint32(this.#take(4), true), this.#top());
      case OP.MEMOIZE:
        return void this.#memo.set(this.#memo.size, this.#top());
      case OP.BINGET:
        return this.#recall(view.getUint8(this.#take(1)));
      case OP.LONG_BINGET:
        return this.#recall(view.getUint32(this.#take(4), true));
      case OP.FRAME: // Says how much to read ahead; all is here.
        return void this.#take(8);

      case OP.GLOBAL:
        return void stack.push(this.#global(this.#line(), this.#line()));
      case OP.STACK_GLOBAL: {
        const [module, name] = this.#popMany(2);
        return void stack.push(this.#global(module, name));
      }
      case OP.BINPERSID:
        return void stack.push(this.vocabulary.persistent(this.#pop()));
      case OP.REDUCE: {
        const [builder, args] = this.#popMany(2);
        if (!(builder instanceof Builder) || !isTuple(args)) {
          throw this.#fail("REDUCE of something that is no function with arguments; the file is damaged");
        }
        return void stack.push(builder.build(args));
      }
      case OP.BUILD: {
        const state = this.#pop();
        if (!(this.#top() instanceof Map && state instanceof Map)) {
          throw this.#fail("BUILD of something else than a dict's attributes, which is refused");
        }
        return;
      }
      default: {
        if (op === INST) this.#global(this.#line(), this.#line()); // So that what it would call is named.
        const name = REFUSED[op] ?? `0x${op.toString(16).padStart(2, "0")}`;
        throw this.#fail(`the pickle opcode ${name}, which PyTorch does not write for tensors, is refused`);
      }
    }
  }

  /** Passes over so many bytes; where they begin. */
  #take(length: number): number {
    const begin = this.#at;
    if (!(length <= this.bytes.length - begin)) {
      throw new PickleCut("format", `${this.where}: its pickle breaks off; the file is cut short or damaged`);
    }
    this.#at += length;
    return begin;
  }

  #text(length: number): string {
    const begin = this.#take(length);
    try {
      return this.#decoder.decode(this.bytes.subarray(begin, this.#at));
    } catch (error) {
      throw this.#fail("a text that is not UTF-8; the file is damaged", error);
    }
  }

  /** The text up to the end of the line. */
  #line(): string {
    const end = this.bytes.subarray(this.#at, this.#at + LONGEST_NAME + 1).indexOf(0x0a);
    if (end < 0) {
      this.#take(LONGEST_NAME + 1);
      throw this.#fail("a name that is too long; the file is damaged");
    }
    const line = this.#text(end);
    this.#take(1);
    return line;
  }

  /** A little-endian integer in two's complement. */
  #long(length: number): number | bigint {
    if (length > LONGEST_INTEGER) throw this.#fail(`an integer of ${length} bytes; the file is damaged`);
    const begin = this.#take(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.bytes[begin + i]);
    value = BigInt.asIntN(8 * length, value);
    return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  }

  #global(module: unknown, name: unknown): unknown {
    if (typeof module !== "string" || typeof name !== "string") {
      throw this.#fail("a global whose name is no text; the file is damaged");
    }
    if (module.length > LONGEST_NAME || name.length > LONGEST_NAME) {
      throw this.#fail("a name that is too long; the file is damaged");
    }
    return this.vocabulary.global(module, name);
  }

  #recall(index: number): void {
    if (!this.#memo.has(index)) throw this.#fail(`memo ${index} was never set; the file is damaged`);
    this.#stack.push(this.#memo.get(index));
  }

  #append(values: unknown[]): void {
    const list = this.#top();
    if (!Array.isArray(list) || Object.isFrozen(list)) {
      throw this.#fail("APPEND to something that is no list; the file is damaged");
    }
    for (const value of values) list.push(value);
  }

  #tuple(values: unknown[]): void {
    this.#stack.push(Object.freeze(values));
  }

  #setItems(items: unknown[]): void {
    const dict = this.#top();
    if (!(dict instanceof Map) || items.length % 2 !== 0) {
      throw this.#fail("SETITEMS of something that is no dict; the file is damaged");
    }
    for (let i = 0; i < items.length; i += 2) {
      const key = items[i];
      if (typeof key !== "string" && typeof key !== "number") {
        throw this.#fail("a dict whose keys are neither texts nor numbers, which is not read");
      }
      // Python would keep the last one without a word.
      if (dict.has(key)) throw this.#fail(`a dict has the key ${quoted(key)} twice; the file is damaged`);
      dict.set(key, items[i + 1]);
    }
  }

  #pop(): unknown {
    return this.#popMany(1)[0];
  }

  #popMany(count: number): unknown[] {
    const left = this.#stack.length - count;
    if (left < (this.#marks.at(-1) ?? 0)) throw this.#fail("a value is missing; the file is damaged");
    return this.#stack.splice(left);
  }

  #popMark(): unknown[] {
    const mark = this.#marks.pop();
    if (mark === undefined) throw this.#fail("a mark is missing; the file is damaged");
    return this.#stack.splice(mark);
  }

  #top(): unknown {
    if (this.#stack.length <= (this.#marks.at(-1) ?? 0)) {
      throw this.#fail("a value is missing; the file is damaged");
    }
    return this.#stack[this.#stack.length - 1];
  }

  #fail(why: string, cause?: unknown): WhetError {
    return new WhetError("format", `${this.where}: in its pickle, at byte ${this.#at}: ${why}`, { cause });
  }
}

/** Whether a pickled value is a tuple. */
export function isTuple(value: unknown): value is readonly unknown[] {
  return Array.isArray(value) && Object.isFrozen(value);
}
