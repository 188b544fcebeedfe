/**
 * Turns the split pattern of a pre-tokenizer, written for Oniguruma, into a JavaScript RegExp with the same
 * matches: white space as Unicode has it, (?i:...) groups, possessive quantifiers. What it does not know it
 * refuses, and the tokenizer then goes through the library. Called by byte-level-bpe.ts.
 */

/** The default pattern of a ByteLevel pre-tokenizer (`use_regex`), GPT-2's. */
export const GPT2_PATTERN = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;

/** The lexical pieces of a pattern, in the order they are tried. */
const LEXEME = new RegExp([
  String.raw`(?<class>\[\^?(?:\\[pP]\{[^}]*\}|\\[^pP]|[^\\\[\]&])+\])`,
  String.raw`(?<escape>\\(?:[pP]\{[^}]*\}|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|[rntfvsSdD]|[^A-Za-z0-9]))`,
  String.raw`(?<open>\((?:\?(?:i:|:|=|!|<=|<!|>))?)`,
  String.raw`(?<close>\))`,
  String.raw`(?<quantifier>\{\d*,?\d*\}\+?|[*+?][+?]?)`,
  String.raw`(?<bar>\|)`,
  String.raw`(?<literal>[^\\\[\](){}^$.*+?|])`,
].join('|'), 'uy');

interface Group { readonly start: number; readonly foldsCase: boolean; readonly atomic: boolean }

/** A global RegExp with the matches of `source`, or null when it holds something that is not translated. */
export function translatePattern(source: string): RegExp | null {
  const translated = new Translation(source).run();
  if (translated === null) return null;
  try {
    return new RegExp(translated, 'gu');
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}

/** A pattern that matches exactly this text. */
export function literalPattern(text: string): RegExp {
  return new RegExp(text.replace(/[\\^$.*+?()[\]{}|/]/g, String.raw`\$&`), 'gu');
}

/** One pass over a pattern; `#out` grows, and the atom that a quantifier would repeat starts at `#atom`. */
class Translation {
  readonly #source: string;
  readonly #open: Group[] = [];
  #out = '';
  #atom = 0;
  #foldsCase = false;
  #numAtomic = 0;

  constructor(source: string) {
    this.#source = source;
  }

  run(): string | null {
    for (let at = 0; at < this.#source.length; ) {
      LEXEME.lastIndex = at;
      const match = LEXEME.exec(this.#source);
      if (match === null || !this.#take(match.groups!)) return null;
      at += match[0].length;
    }
    return this.#open.length === 0 ? this.#out : null;
  }

  /** false: this lexeme is not translated. */
  #take({ class: set, escape, open, close, quantifier, bar, literal }: Record<string, string | undefined>): boolean {
    if (open !== undefined) return this.#openGroup(open);
    if (close !== undefined) return this.#closeGroup();
    if (quantifier !== undefined) return this.#repeat(quantifier);
    if (bar !== undefined) this.#out += bar;
    else if (set !== undefined) return this.#takeClass(set);
    else if (escape !== undefined) return this.#emit(translateEscape(escape));
    else return this.#emit(this.#foldsCase ? foldedLiteral(literal!) : literal!);
    return true;
  }

  #emit(atom: string): true {
    this.#atom = this.#out.length;
    this.#out += atom;
    return true;
  }

  #takeClass(set: string): boolean {
    // Folding a range or a property of letters would need tables: left to the library.
    if (this.#foldsCase && /\\[pP]|[A-Za-z]-/.test(set)) return false;
    const escaped = set.replace(/\\(?:[pP]\{[^}]*\}|[^pP])/gu, translateEscape);
    return this.#emit(this.#foldsCase ? escaped.replace(/(?<!\\)[A-Za-z]/g, bothCases) : escaped);
  }

  #openGroup(open: string): true {
    const atomic = open === '(?>';
    this.#open.push({ start: this.#out.length, foldsCase: this.#foldsCase, atomic });
    this.#foldsCase ||= open === '(?i:';
    this.#out += atomic || open === '(?i:' || open === '(' ? '(?:' : open;
    return true;
  }

  #closeGroup(): boolean {
    const group = this.#open.pop();
    if (group === undefined) return false;
    this.#out += ')';
    this.#atom = group.start;
    this.#foldsCase = group.foldsCase;
    if (group.atomic) this.#makeAtomic();
    return true;
  }

  #repeat(quantifier: string): true {
    const interval = quantifier.startsWith('{');
    const possessive = quantifier.length > 1 && quantifier.endsWith('+');
    this.#out += (possessive ? quantifier.slice(0, -1) : quantifier).replace('{,', '{0,');
    // Oniguruma reads {1,3}+ as a repeated interval, not as a possessive one.
    if (possessive && interval) this.#out = `${this.#out.slice(0, this.#atom)}(?:${this.#out.slice(this.#atom)})+`;
    else if (possessive) this.#makeAtomic();
    return true;
  }

  /** JavaScript has no atomic groups; a look-ahead is one, and the backreference then consumes what it saw. */
  #makeAtomic(): void {
    const name = `atomic${this.#numAtomic++}`;
    this.#out = `${this.#out.slice(0, this.#atom)}(?:(?=(?<${name}>${this.#out.slice(this.#atom)}))\\k<${name}>)`;
  }
}

/** Inside a class or outside: shorthands take their Unicode meaning, scripts their JavaScript name. */
function translateEscape(escape: string): string {
  const shorthand = SHORTHANDS.get(escape);
  if (shorthand !== undefined) return shorthand;
  if (/^\\[pP]/.test(escape)) return isProperty(escape) ? escape : escape.replace('{', '{Script=');
  // Only syntax characters may be escaped under the u flag.
  return /^\\[^A-Za-z0-9^$\\.*+?()[\]{}|/-]/u.test(escape) ? escape.slice(1) : escape;
}

const SHORTHANDS = new Map([
  [String.raw`\s`, String.raw`\p{White_Space}`], [String.raw`\S`, String.raw`\P{White_Space}`],
  [String.raw`\d`, String.raw`\p{Nd}`], [String.raw`\D`, String.raw`\P{Nd}`],
  // A dash is a syntax character only within a class; outside it may not be escaped.
  [String.raw`\-`, String.raw`\x2d`],
]);

function isProperty(escape: string): boolean {
  try {
    return new RegExp(escape, 'u').source !== '';
  } catch {
    return false;
  }
}

function foldedLiteral(literal: string): string {
  return /^[A-Za-z]$/.test(literal) ? `[${bothCases(literal)}]` : literal;
}

/** Unicode folds the long s and the Kelvin sign onto ASCII letters. */
function bothCases(letter: string): string {
  const lower = letter.toLowerCase();
  return lower + letter.toUpperCase() + ({ s: 'ſ', k: '\u212a' }[lower] ?? '');
}
