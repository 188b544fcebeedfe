/**
 * Drafts by reading a text of its own: something that stands for the prompt, then the generated tokens. With a small
 * model over the last tokens it is the lowest level of TriForce; with what was retrieved from the prompt it is RAPID's
 * drafter (arXiv 2502.20330), where engine and pages may be the target's own. Its pages come from a pool that has an
 * end: without them it proposes nothing. Knows no technique and no scheduler. Made by create.ts.
 */
import type { Chunk, Engine } from '../engine.ts';
import { rowsOf, type LogitRow } from '../logit-row.ts';
import type { KvCache } from '../../kvcache/kv-cache.ts';
import type { PageListPolicy } from '../../kvcache/page-lists/page-list.ts';
import { drawDraft, type DraftedToken } from '../verify.ts';
import { emptyDraft, goesOn, type Draft, type Drafter, type DraftRequest, type ForeseenText } from './drafter.ts';
import { OwnText, type Opening } from './own-text.ts';
import { MODEL_ACCEPTANCES, surenessOf } from './sureness.ts';

export interface OwnTextDrafterParts {
  readonly level: 'model' | 'rapid';
  readonly engine: Engine;
  readonly kv: KvCache;
  /** True when engine and pages are the target's. */
  readonly sharesMemory: boolean;
  readonly policy: PageListPolicy;
  /** What a sequence's own text begins with; null when there is nothing to read. */
  readonly open: (text: ForeseenText) => Opening | null;
  /** Whether pages may be taken for another text now. */
  readonly mayBegin: () => boolean;
}

/** Most tokens of a text that are read in one call, so that streams beside it do not wait long. */
const READ_TOKENS = 512;

export class OwnTextDrafter implements Drafter {
  readonly level: string;
  readonly firstAcceptances = MODEL_ACCEPTANCES;
  readonly #parts: OwnTextDrafterParts;
  readonly #texts = new Map<number, OwnText>();

  constructor(parts: OwnTextDrafterParts) {
    this.level = parts.level;
    this.#parts = parts;
  }

  get heldPages(): number {
    if (!this.#parts.sharesMemory) return 0;
    return [...this.#texts.values()].reduce((sum, { numHeld }) => sum + numHeld, 0);
  }

  async draft(requests: readonly DraftRequest[]): Promise<readonly Draft[]> {
    const turns = requests.map((request) => this.#begin(request));
    const reading = turns.filter((turn) => turn instanceof Turn);
    await this.#read(reading);
    for (let open = reading.filter(({ isReady }) => isReady); open.length > 0; open = open.filter(({ wanted }) => wanted > 0)) {
      await this.#pass(open);
    }
    return turns.map((turn) => (turn instanceof Turn ? turn.toDraft() : turn));
  }

  /** Passes of its model are the price. */
  foresee(): null {
    return null;
  }

  /** The last token is read by the first pass itself. */
  unread(text: ForeseenText): number {
    const known = this.#texts.get(text.sequenceId);
    if (known !== undefined) return Math.max(0, known.unreadOf(text.text.length) - 1);
    const opening = this.#parts.open(text);
    return opening === null ? 0 : opening.tokens.length + text.text.length - opening.origin - 1;
  }

  forget(sequenceId: number): void {
    this.#texts.get(sequenceId)?.close();
    this.#texts.delete(sequenceId);
  }

  releasePages(): void {
    if (this.#parts.sharesMemory) for (const id of [...this.#texts.keys()]) this.forget(id);
  }

  #begin(request: DraftRequest): Turn | Draft {
    const text = this.#textOf(request);
    if (!(text instanceof OwnText)) return text;
    text.follow(request);
    if (text.reserve(request.maxTokens)) return new Turn(request, text);
    this.forget(request.sequenceId);
    return emptyDraft('no KV memory is left for the drafter');
  }

  #textOf(request: DraftRequest): OwnText | Draft {
    const known = this.#texts.get(request.sequenceId);
    if (known !== undefined) return known;
    if (!this.#parts.mayBegin()) return emptyDraft('KV memory is kept for requests that wait');
    const opening = this.#parts.open(request);
    if (opening === null) return emptyDraft('there is nothing that the drafter could read');
    const text = new OwnText(request.sequenceId, opening, this.#parts);
    this.#texts.set(request.sequenceId, text);
    return text;
  }

  /** What is not read yet, but for the last token: as far as one call may take. */
  async #read(turns: readonly Turn[]): Promise<void> {
    for (const turn of turns) {
      const { text } = turn;
      for (let left = READ_TOKENS; left > 0 && text.unread > 1;) {
        const chunk = text.prefillChunk(Math.min(left, text.unread - 1));
        await this.#parts.engine.run([chunk]);
        text.wrote(chunk.tokens);
        turn.readTokens += chunk.tokens.length;
        left -= chunk.tokens.length;
      }
    }
  }

  async #pass(turns: readonly Turn[]): Promise<void> {
    const chunks: Chunk[] = turns.map(({ text, next, request }) => ({ ...text.decodeChunk(next), headTemperature: request.sampler.temperature }));
    const result = await this.#parts.engine.run(chunks);
    turns.forEach((turn, i) => {
      turn.text.wrote(chunks[i]!.tokens);
      turn.take(rowsOf(result, i, this.#parts.engine.spec.vocab)[0]!);
    });
  }
}

/** One draft of one text. */
class Turn {
  readonly request: DraftRequest;
  readonly text: OwnText;
  /** Read before anything is drafted. */
  readTokens = 0;
  readonly #drafted: DraftedToken[] = [];
  readonly #classes: number[] = [];

  constructor(request: DraftRequest, text: OwnText) {
    this.request = request;
    this.text = text;
  }

  /** Only the last token is left to compute. */
  get isReady(): boolean {
    return this.text.unread === 1;
  }

  get wanted(): number {
    return goesOn(this.request.patience, this.#classes) ? this.request.maxTokens - this.#drafted.length : 0;
  }

  /** The token to compute next. */
  get next(): number {
    return this.#drafted.at(-1)?.token ?? this.request.text.at(-1)!;
  }

  /** Draws the next token of a row of logits. */
  take(row: LogitRow): void {
    const drafted = drawDraft(row, this.request.sampler);
    this.#classes.push(surenessOf(row, drafted.token));
    this.#drafted.push(drafted);
    this.request.sampler.accept(drafted.token);
  }

  toDraft(): Draft {
    if (this.#drafted.length === 0) return emptyDraft('the drafter is still reading', this.readTokens);
    return {
      tokens: Int32Array.from(this.#drafted, ({ token }) => token),
      distributions: this.#drafted.map(({ distribution }) => distribution), classes: Uint8Array.from(this.#classes),
      below: [], readTokens: this.readTokens, reason: null,
    };
  }
}
