/**
 * Prompt lookup: proposes what followed the same words earlier in the text (Saxena, github.com/apoorvumang/
 * prompt-lookup-decoding; Yang et al., arXiv 2304.04487). Costs no pass of any model, and is strong where a document is
 * quoted. Where the words stand several times, the places vote, those that agree longer far more than others; how long
 * they agree and how unanimous the vote is says how sure a token is. Draws nothing, so its tokens have no
 * distributions. Made by create.ts.
 */
import { emptyDraft, type Draft, type Drafter, type DraftRequest, type ForeseenText } from './drafter.ts';
import { MAX_MATCH, NgramIndex, type Place } from './ngram-index.ts';

/** Tokens that must agree. The longer are looked for first: of a common few the latest places may all be others. */
const GRAMS = [8, 3] as const;
/** Weight of a vote for each token that agrees. */
const MATCH_WEIGHT = 3;
/** Least tokens that agree, for the classes of sureness. */
const MATCH_CLASSES = [3, 4, 5, 7, 10, 16];
/** Share of the votes that is below the majority, and below unanimity. */
const SHARES = [0.5, 0.99];
/**
 * Share of tokens that came true, on a novel that quotes itself and on answers that quote it: a row for each class of
 * matches; the vote was split, won, unanimous.
 */
const FIRST_ACCEPTANCES = [
  [0.15, 0.3, 0.45],
  [0.25, 0.45, 0.6],
  [0.4, 0.7, 0.8],
  [0.5, 0.7, 0.85],
  [0.75, 0.85, 0.93],
  [0.9, 0.93, 0.97],
];

export class NgramDrafter implements Drafter {
  readonly level = 'ngram';
  readonly heldPages = 0;
  readonly firstAcceptances = FIRST_ACCEPTANCES.flat();
  readonly #indices = new Map<number, readonly NgramIndex[]>();

  draft(requests: readonly DraftRequest[]): Promise<readonly Draft[]> {
    return Promise.resolve(requests.map((request) => this.foresee(request)));
  }

  foresee({ sequenceId, text, finalTokens, maxTokens }: ForeseenText): Draft {
    let indices = this.#indices.get(sequenceId);
    if (indices === undefined) this.#indices.set(sequenceId, indices = GRAMS.map((gram) => new NgramIndex(gram)));
    for (const index of indices) index.extend(text, finalTokens);
    for (const index of indices) {
      const places = index.places(text);
      if (places.length > 0) return continuation(text, places, maxTokens);
    }
    return emptyDraft('the last words stand nowhere else in the text');
  }

  unread(): number {
    return 0;
  }

  forget(sequenceId: number): void {
    this.#indices.delete(sequenceId);
  }

  releasePages(): void {
    // Has none.
  }
}

/** Token by token what most votes are for; who voted for another is not asked again. */
function continuation(text: Int32Array, places: readonly Place[], count: number): Draft {
  const tokens = new Int32Array(count);
  const classes = new Uint8Array(count);
  /** At the end of the text it goes on with what was proposed, as a repetition would. */
  const tokenAt = (position: number): number => (position < text.length ? text[position]! : tokens[position - text.length]!);
  let voters = places;
  for (let i = 0; i < count; i++) {
    const { token, share } = vote(voters, (place) => tokenAt(place.end + i));
    tokens[i] = token;
    voters = voters.filter(({ end }) => tokenAt(end + i) === token);
    const match = voters.reduce((most, each) => Math.max(most, each.match), 0);
    classes[i] = sureness(Math.min(MAX_MATCH, match + i), share);
  }
  return { tokens, classes, distributions: new Array<null>(count).fill(null), below: [], readTokens: 0, reason: null };
}

/** Of equals the one that was named first: the latest. */
function vote(places: readonly Place[], tokenOf: (place: Place) => number): { token: number; share: number } {
  const votes = new Map<number, number>();
  let sum = 0;
  for (const place of places) {
    const weight = MATCH_WEIGHT ** place.match;
    const token = tokenOf(place);
    votes.set(token, (votes.get(token) ?? 0) + weight);
    sum += weight;
  }
  const [token, most] = [...votes].reduce((best, each) => (each[1] > best[1] ? each : best));
  return { token, share: most / sum };
}

function sureness(match: number, share: number): number {
  const row = MATCH_CLASSES.findLastIndex((least) => match >= least);
  return row * (SHARES.length + 1) + SHARES.filter((bound) => share >= bound).length;
}
