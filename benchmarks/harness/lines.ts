/**
 * Bytes to lines.
 *
 * @module
 */

/** Splits UTF-8 at line ends; the last line needs none. */
export class TextLineStream implements TransformStream<Uint8Array<ArrayBuffer>, string> {
  readonly readable: ReadableStream<string>;
  readonly writable: WritableStream<Uint8Array<ArrayBuffer>>;

  constructor() {
    let rest = "";
    const decoder = new TextDecoderStream();
    this.writable = decoder.writable;
    this.readable = decoder.readable.pipeThrough(
      new TransformStream<string, string>({
        transform(text, controller) {
          const lines = (rest + text).split("\n");
          rest = lines.pop()!;
          for (const line of lines) controller.enqueue(line);
        },
        flush(controller) {
          if (rest) controller.enqueue(rest);
        },
      }),
    );
  }
}
