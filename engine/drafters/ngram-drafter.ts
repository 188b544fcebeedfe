/**
 * Prompt lookup: proposes what followed the same words earlier in the text (Saxena, github.com/apoorvumang/
 * prompt-lookup-decoding; Yang et al., arXiv 2304.04487). Costs no pass of any model, and is strong where a document is
 * quoted. Draws nothing, so its tokens have no distributions. Made by create.ts.
 */
import { emptyDraft, type Draft, type Drafter, type DraftRequest } from './drafter.ts';
import { NgramIndex } from './ngram-index.ts';

export class NgramDrafter implements Drafter {
  readonly level = 'ngram';
  readonly heldPages = 0;
  readonly #indices = new Map<number, NgramIndex>();

  draft(requests: readonly DraftRequest[]): Promise<readonly Draft[]> {
    return Promise.resolve(requests.map((request) => this.#draftOne(request)));
  }

  forget(sequenceId: number): void {
    this.#indices.delete(sequenceId);
  }

  releasePages(): void {
    // Has none.
  }

  #draftOne({ sequenceId, text, finalTokens, maxTokens }: DraftRequest): Draft {
    let index = this.#indices.get(sequenceId);
    if (index === undefined) this.#indices.set(sequenceId, index = new NgramIndex());
    index.extend(text, finalTokens);
    const place = index.find(text);
    if (place === null) return emptyDraft('the last words stand nowhere else in the text');
    const tokens = continuation(text, place, maxTokens);
    return { tokens, distributions: new Array<null>(tokens.length).fill(null), below: [], reason: null };
  }
}

/** The tokens from `place` on; at the end of the text it goes on with what it has proposed, as a repetition would. */
function continuation(text: Int32Array, place: number, count: number): Int32Array {
  const tokens = new Int32Array(count);
  for (let i = 0; i < count; i++) tokens[i] = place + i < text.length ? text[place + i]! : tokens[place + i - text.length]!;
  return tokens;
}
