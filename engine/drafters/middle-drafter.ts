/**
 * TriForce's middle level (arXiv 2404.11912): the target itself over a short list of pages, picked anew for each draft
 * and kept for its length, drafts for the target over the whole text. What a lower drafter proposes it verifies
 * itself, by the same rule as the target (the release samples a rejected token from the wrong distribution there);
 * without one, or where one does not pay, it draws token by token. Its list is a page list like any other, so it has
 * no cache that could grow old (the release never rebuilds its own). It writes keys and values of drafted tokens to the
 * sequence's own pages, approximations, and takes them back: the target's pass writes them anew. Made by create.ts.
 */
import type { Chunk, Engine } from '../engine.ts';
import { PAGE_TOKENS, type AttentionPlan, type PageListPolicy } from '../../kvcache/page-lists/page-list.ts';
import { rowsOf, type LogitRow } from '../logit-row.ts';
import type { Sampler } from '../sampler.ts';
import { drawDraft, verify, type DraftedToken } from '../verify.ts';
import { emptyDraft, goesOn, type Draft, type Drafter, type DraftRequest, type LevelCount } from './drafter.ts';
import { LowerPace } from './lower-pace.ts';
import { MODEL_ACCEPTANCES, surenessOf } from './sureness.ts';

export interface MiddleDrafterParts {
  readonly engine: Engine;
  /** The short list. Decode plans of it pick by one query head group, so that a chunk may have several tokens. */
  readonly policy: PageListPolicy;
  /** null: every token is the middle level's own. */
  readonly lower: Drafter | null;
  /** Most tokens that the lower drafter proposes for one pass. */
  readonly lowerTokens: number;
  /** ms */
  readonly now: () => number;
}

export class MiddleDrafter implements Drafter {
  readonly level = 'middle';
  readonly firstAcceptances = MODEL_ACCEPTANCES;
  readonly #parts: MiddleDrafterParts;
  readonly #pace = new LowerPace();
  /** What the lower drafter takes to read a token; null until measured. */
  #readMs: number | null = null;

  constructor(parts: MiddleDrafterParts) {
    this.#parts = parts;
  }

  get heldPages(): number {
    return this.#parts.lower?.heldPages ?? 0;
  }

  async draft(requests: readonly DraftRequest[]): Promise<readonly Draft[]> {
    const texts = requests.map((request) => new DraftedText(request));
    try {
      for (let open = texts; open.length > 0; open = open.filter(({ wanted }) => wanted > 0)) await this.#pass(open);
    } finally {
      for (const { request, begin } of texts) this.#parts.engine.truncate(request, begin);
    }
    return texts.map((text) => text.toDraft(this.#parts.lower));
  }

  /** Passes of the target are the price. */
  foresee(): null {
    return null;
  }

  /** It can draft without the lower drafter, and lets it read only where that pays. */
  unread(): number {
    return 0;
  }

  forget(sequenceId: number): void {
    this.#parts.lower?.forget(sequenceId);
  }

  releasePages(): void {
    this.#parts.lower?.releasePages();
  }

  /** One pass of the middle level for all texts: it verifies what is below and draws one token more. */
  async #pass(texts: readonly DraftedText[]): Promise<void> {
    const { engine, now } = this.#parts;
    const startMs = now();
    const proposals = await this.#propose(texts);
    const result = await engine.run(texts.map((text, i) => this.#chunk(text, proposals[i]!.tokens)));
    let numDrafted = 0;
    texts.forEach((text, i) => {
      const numComputed = text.verify(proposals[i]!, rowsOf(result, i, engine.spec.vocab));
      if (numComputed <= proposals[i]!.tokens.length) engine.truncate(text.request, text.computed);
      numDrafted += numComputed;
    });
    const numRead = proposals.reduce((sum, { readTokens }) => sum + readTokens, 0);
    if (numRead > SOON_READ * texts.length) return; // Not what passes take.
    this.#pace.observe({ texts: texts.length, asked: proposals.some((proposal) => proposal !== NOTHING), tokens: numDrafted, ms: now() - startMs });
  }

  /** A pass draws a token more than it verifies, so one less is proposed than is wanted. */
  async #propose(texts: readonly DraftedText[]): Promise<readonly Draft[]> {
    const { lower, lowerTokens } = this.#parts;
    const proposals = texts.map(() => NOTHING);
    const asking = texts.flatMap((text, i) => (text.wanted > 1 ? [i] : []));
    if (lower === null || asking.length === 0 || !this.#asks(lower, texts)) return proposals;
    const startMs = this.#parts.now();
    const drafts = await lower.draft(asking.map((i) => texts[i]!.requestBelow(lowerTokens)));
    const numRead = drafts.reduce((sum, { readTokens }) => sum + readTokens, 0);
    if (numRead > SOON_READ * asking.length) this.#readMs = (this.#parts.now() - startMs) / numRead;
    asking.forEach((index, i) => { proposals[index] = drafts[i]!; });
    return proposals;
  }

  /** Forced drafts go through all levels. */
  #asks(lower: Drafter, texts: readonly DraftedText[]): boolean {
    if (texts.some(({ request }) => request.patience === null)) return true;
    return this.#readingPays(lower, texts) && this.#pace.asks(texts.length);
  }

  /** A text that has gone on for long is expected to go on for as long again. */
  #readingPays(lower: Drafter, texts: readonly DraftedText[]): boolean {
    const unread = texts.reduce((sum, { request }) => sum + lower.unread(request), 0);
    if (unread <= SOON_READ * texts.length) return true;
    const expected = texts.reduce((sum, { request }) => sum + request.text.length - request.promptTokens, EXPECTED_TOKENS * texts.length);
    const saved = this.#pace.savedMs(texts.length);
    if (saved === null || this.#readMs === null) return expected > EXPLORING_TOKENS * texts.length;
    return READING_MARGIN * unread * this.#readMs < expected * saved;
  }

  #chunk({ request, tokens, computed, begin }: DraftedText, proposed: Int32Array): Chunk {
    const { sequenceId, pageTable, promptTokens } = request;
    const chunk = new Int32Array(1 + proposed.length);
    chunk[0] = tokens.at(-1) ?? request.text.at(-1)!;
    chunk.set(proposed, 1);
    const plan = this.#parts.policy.plan(pageTable, computed, chunk.length, 'decode');
    return { phase: 'decode', sequenceId, tokens: chunk, start: computed, pageTable, attention: kept(plan, computed, begin), promptTokens, logits: 'all', headTemperature: request.sampler.temperature };
  }
}

const NOTHING = emptyDraft('nothing was asked');
/** Tokens of a text that the lower drafter reads in passing, of what the middle level drew without it. */
const SOON_READ = 8;
/** Tokens that a text is expected to go on for at least. */
const EXPECTED_TOKENS = 64;
/** Tokens that a text must be expected to go on for before anybody knows what asking is worth. */
const EXPLORING_TOKENS = 192;
/** What asking saves must be so many times what reading takes: it is paid first. */
const READING_MARGIN = 2;

/** Picked at the beginning of a draft, and where a page has become a candidate; the same pages in between. */
function kept(plan: AttentionPlan, start: number, begin: number): AttentionPlan {
  return { ...plan, selection: start === begin || start % PAGE_TOKENS === 0 ? 'fresh' : 'reuse' };
}

/** One text while it is drafted for: what it has so far, and what the levels did. */
class DraftedText {
  readonly request: DraftRequest;
  /** Position of the first token that is in no KV memory. */
  readonly begin: number;
  /** The same, with what was drafted. */
  computed: number;
  readonly tokens: number[] = [];
  readonly #distributions: (Float64Array | null)[] = [];
  readonly #classes: number[] = [];
  /** The counts of the levels below the one below, by name. */
  readonly #below = new Map<string, LevelCount>();
  readonly #sampler: Sampler;
  #readTokens = 0;
  #proposed = 0;
  #accepted = 0;

  constructor(request: DraftRequest) {
    this.request = request;
    this.begin = request.text.length - 1;
    this.computed = this.begin;
    this.#sampler = request.sampler;
  }

  get wanted(): number {
    return goesOn(this.request.patience, this.#classes) ? this.request.maxTokens - this.tokens.length : 0;
  }

  requestBelow(lowerTokens: number): DraftRequest {
    const { text } = this.request;
    const whole = new Int32Array(text.length + this.tokens.length);
    whole.set(text);
    whole.set(this.tokens, text.length);
    return { ...this.request, text: whole, maxTokens: Math.min(lowerTokens, this.wanted - 1), patience: null, sampler: this.#sampler.fork() };
  }

  /** Takes over what the rows of logits uphold, and the token after it. [proposal + 1, vocab] -> tokens whose keys are right. */
  verify(proposal: Draft, rows: readonly LogitRow[]): number {
    const { tokens, distributions, below, readTokens } = proposal;
    this.#readTokens += readTokens;
    for (const count of below) this.#below.set(count.level, added(this.#below.get(count.level), count));
    this.#proposed += tokens.length;
    for (let i = 0; i < tokens.length; i++) {
      const { token, accepted } = this.#verifyOne(rows[i]!, { token: tokens[i]!, distribution: distributions[i]! });
      this.computed++;
      if (accepted) this.#accepted++;
      else return i + 1;
      if (token !== tokens[i]) throw new Error(`accepted token ${tokens[i]} became ${token}`);
    }
    const last = rows[tokens.length]!;
    this.#take(last, drawDraft(last, this.#sampler));
    this.computed++;
    return tokens.length + 1;
  }

  toDraft(lower: Drafter | null): Draft {
    const own = lower === null ? [] : [{ level: lower.level, draftedTokens: this.#proposed, acceptedTokens: this.#accepted }];
    return {
      tokens: Int32Array.from(this.tokens), distributions: this.#distributions, classes: Uint8Array.from(this.#classes),
      below: [...this.#below.values(), ...own], readTokens: this.#readTokens, reason: null,
    };
  }

  /** Whether kept or replaced, a verified token has the middle level's distribution. */
  #verifyOne(row: LogitRow, drafted: DraftedToken) {
    const verdict = verify(row, drafted, this.#sampler);
    const distribution = this.#sampler.isForeseen ? null : this.#sampler.distribution(row);
    this.#take(row, { token: verdict.token, distribution });
    return verdict;
  }

  /** A token that the row of logits gave. */
  #take(row: LogitRow, { token, distribution }: DraftedToken): void {
    this.#classes.push(surenessOf(row, token));
    this.tokens.push(token);
    this.#distributions.push(distribution);
    this.#sampler.accept(token);
  }
}

function added(sum: LevelCount | undefined, { level, draftedTokens, acceptedTokens }: LevelCount): LevelCount {
  return { level, draftedTokens: draftedTokens + (sum?.draftedTokens ?? 0), acceptedTokens: acceptedTokens + (sum?.acceptedTokens ?? 0) };
}
