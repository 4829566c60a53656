/**
 * Reads a TypeScript file as text: its imports, and its code without comments and strings.
 *
 * A scanner of tokens, no parser: it knows comments, strings, templates and (by what stands before the slash) regular expressions, which
 * is enough to never take the content of a string for code. Cost is linear. Not here: what to make of it (check-imports.ts).
 */
export interface Import {
  readonly line: number;
  readonly specifier: string;
}

export interface Scanned {
  /** The text with comments and the contents of strings blanked, lines kept. */
  readonly code: string;
  readonly imports: readonly Import[];
  /** Lines of dynamic imports whose target is not a plain string. */
  readonly opaque: readonly number[];
}

const TOKENS = new RegExp(
  [
    String.raw`//[^\n]*`,
    String.raw`/\*[\s\S]*?\*/`,
    String.raw`"(?:\\.|[^"\\\n])*"`,
    String.raw`'(?:\\.|[^'\\\n])*'`,
    // A regular expression literal stands where a value may begin.
    String.raw`(?<=[=(,:;!&|?{}[\n>]\s*|\breturn\s+)/(?![*/])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+/[a-z]*`,
    "`",
    "[{}]",
  ].join("|"),
  "g",
);

/** The code in front of an import's specifier. `module.import("x")` is a method. */
const BEFORE_SPECIFIER = /\bfrom\s*$|(?<![.#\w])import\s*\(?\s*$/;
/** How a worker's file is named: new URL("./worker.ts", import.meta.url). */
const BEFORE_URL = /\bnew\s+URL\s*\(\s*$/;
/** The call of import with an expression; a method called import has typed parameters. */
const OPAQUE_IMPORT = /(?<![.#\w])import\s*\(\s*(?!["\s])[^:)]*\)/g;

export const blank = (text: string): string => text.replace(/[^\n]/g, " ");

/** Tells code from comments, strings and templates; the code inside ${} of a template is code. */
export function scan(text: string): Scanned {
  const imports: Import[] = [];
  let code = "";
  let at = 0;
  /** Open braces: "{" of code, "$" of a template's substitution. */
  const open: string[] = [];
  const take = (end: number): void => {
    code += text.slice(at, end);
    at = end;
  };
  const template = (): void => {
    const end = templateStop(text, at);
    code += blank(text.slice(at, end));
    at = end;
    if (text.startsWith("${", end - 2)) open.push("$");
  };
  for (;;) {
    TOKENS.lastIndex = at;
    const found = TOKENS.exec(text);
    if (!found) break;
    const token = found[0];
    take(found.index);
    if (token === "`") {
      take(at + 1);
      template();
    } else if (token === "{" || token === "}") {
      take(at + 1);
      if (token === "{") open.push("{");
      else if (open.pop() === "$") template();
    } else {
      if (token[0] === '"' || token[0] === "'") {
        const specifier = token.slice(1, -1);
        const before = code.slice(-40);
        const isWorker = BEFORE_URL.test(before) && /^\.\.?\//.test(specifier);
        if (isWorker || BEFORE_SPECIFIER.test(before)) {
          imports.push({ line: lineAt(text, at), specifier });
        }
        code += `"${blank(token.slice(1, -1))}"`;
      } else code += blank(token);
      at += token.length;
    }
  }
  take(text.length);
  const opaque = [...code.matchAll(OPAQUE_IMPORT)].map((m) => lineAt(code, m.index));
  return { code, imports, opaque };
}

/** Where the template text at `from` ends: behind its closing backtick or behind the next "${". */
function templateStop(text: string, from: number): number {
  for (let i = from; i < text.length; i++) {
    if (text[i] === "\\") i++;
    else if (text[i] === "`") return i + 1;
    else if (text[i] === "$" && text[i + 1] === "{") return i + 2;
  }
  return text.length;
}

export function lineAt(text: string, index: number): number {
  let line = 1;
  for (let i = text.indexOf("\n"); i >= 0 && i < index; i = text.indexOf("\n", i + 1)) line++;
  return line;
}
