/**
 * What a model is called by those who ask for it.
 *
 * @module
 */

/**
 * A name for what was loaded from somewhere: of a path or an address the last part, for the rest is nobody's business.
 *
 * @param source A directory, an http(s) URL, a Hub id, or a name.
 */
export function servedName(source: string): string {
  if (!/^([./\\~]|\w:[/\\]|\w+:\/\/)/.test(source)) return source;
  const parts = source.replace(/[?#].*$/, "").split(/[/\\]+/).filter((part) => !/^(\.*|~|\w+:)$/.test(part));
  return parts.at(-1) ?? "model";
}
