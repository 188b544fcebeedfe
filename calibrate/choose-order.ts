/**
 * In which order to let KV heads stream, so that the first so many of them together do the least harm. Heads stand in for
 * each other: alone hardly any does harm, so harms are measured for sets. Pure search over a measurement that it is given:
 * knows no engine and no text. Called by measure.ts.
 */

export interface OrderSearch {
  /** Heads in the order of another measure: taken as far as it does no harm, and where harms are equal. */
  readonly ranked: readonly number[];
  /** Measures about so many sets at most. */
  readonly maxEvaluations: number;
  /** Harm that counts as none. */
  readonly tolerance: number;
  /** Harm of these heads streaming together. */
  harmOf(heads: readonly number[]): Promise<number>;
}

export interface ChosenOrder {
  /** The first do the least harm. */
  readonly order: readonly number[];
  /** Of order[0..i] together; null where it was not measured. [order] */
  readonly harm: readonly (number | null)[];
  readonly evaluations: number;
}

/** Heads that are measured together, since a search head by head would measure too often. */
type Group = readonly number[];

interface Candidate {
  readonly group: Group;
  /** Harm of the chosen ones with this one, less that of the chosen ones, when last measured. */
  added: number;
}

/** One by one takes about so many evaluations for each group, or fewer. */
const EVALUATIONS_PER_GROUP = 4;
/** Harms closer than this are equal: about what rounding makes of a loss. */
const EQUAL = 1e-4;

export async function chooseOrder(search: OrderSearch): Promise<ChosenOrder> {
  const { ranked, maxEvaluations } = search;
  const measured = new Measured(search);
  const harmless = await harmlessStart(search, measured);
  const groups = groupsOf(ranked.slice(harmless), Math.max(1, Math.floor((maxEvaluations - measured.count) / EVALUATIONS_PER_GROUP)));
  const order = await addOneByOne(groups, ranked.slice(0, harmless), { measured, tolerance: search.tolerance });
  const exchanged = await exchange(order, Math.round(ranked.length / 2), { measured, tolerance: search.tolerance });
  return { order: exchanged, harm: exchanged.map((_, i) => measured.known(exchanged.slice(0, i + 1))), evaluations: measured.count };
}

/** How many of the first heads of the ranking stream without harm, by halving: harm is taken to grow with the set. */
async function harmlessStart({ ranked, tolerance }: OrderSearch, measured: Measured): Promise<number> {
  let [harmless, harmful] = [0, ranked.length + 1];
  while (harmful - harmless > 1) {
    const middle = Math.floor((harmless + harmful) / 2);
    if (await measured.harm(ranked.slice(0, middle)) <= tolerance) harmless = middle;
    else harmful = middle;
  }
  return harmless;
}

/**
 * The first that does no harm, or lazily (Minoux 1978): what a group adds grows with what streams already, as those that
 * could stand in for it go, so the one that added least when last measured is measured anew, and chosen if it still adds the
 * least.
 */
async function addOneByOne(groups: readonly Group[], start: readonly number[], { measured, tolerance }: { measured: Measured; tolerance: number }): Promise<number[]> {
  const left = groups.map((group): Candidate => ({ group, added: -Infinity }));
  const chosen = [...start];
  let harm = chosen.length === 0 ? 0 : await measured.harm(chosen);
  while (left.length > 0) {
    const fresh = new Set<Candidate>();
    let best = leastAdding(left);
    while (!fresh.has(best) && measured.left > 0) {
      best.added = await measured.harm([...chosen, ...best.group]) - harm;
      fresh.add(best);
      if (harm + best.added > tolerance) best = leastAdding(left);
    }
    left.splice(left.indexOf(best), 1);
    chosen.push(...best.group);
    harm += best.added;
  }
  return chosen;
}

/** The first of those that add the least. */
function leastAdding(candidates: readonly Candidate[]): Candidate {
  return candidates.reduce((best, other) => (other.added < best.added - EQUAL ? other : best));
}

/** Exchanges heads of the first `half` for later ones while that lessens the harm of the half and evaluations are left. */
async function exchange(order: readonly number[], half: number, { measured, tolerance }: { measured: Measured; tolerance: number }): Promise<readonly number[]> {
  const [inside, outside] = [order.slice(0, half), order.slice(half)];
  const harm = measured.known(inside) ?? Infinity;
  for (const leaving of harm <= tolerance ? [] : inside.toReversed()) {
    const others = inside.filter((head) => head !== leaving);
    for (const entering of outside) {
      if (measured.left <= 0) return order;
      if (await measured.harm([...others, entering]) > harm - EQUAL) continue;
      return exchange([...others, entering, leaving, ...outside.filter((head) => head !== entering)], half, { measured, tolerance });
    }
  }
  return order;
}

/** Sets that were measured are not measured again. */
class Measured {
  readonly #search: OrderSearch;
  readonly #harms = new Map<string, number>();

  constructor(search: OrderSearch) {
    this.#search = search;
  }

  get count(): number {
    return this.#harms.size;
  }

  get left(): number {
    return this.#search.maxEvaluations - this.count;
  }

  async harm(heads: readonly number[]): Promise<number> {
    const harm = this.known(heads) ?? await this.#search.harmOf(heads);
    this.#harms.set(keyOf(heads), harm);
    return harm;
  }

  known(heads: readonly number[]): number | null {
    return this.#harms.get(keyOf(heads)) ?? null;
  }
}

function keyOf(heads: readonly number[]): string {
  return [...heads].sort((a, b) => a - b).join();
}

/** `count` groups of neighbours at most, as equal as can be, the larger ones first. */
function groupsOf(ranked: readonly number[], count: number): Group[] {
  const groups: Group[] = [];
  for (let from = 0, left = Math.min(count, ranked.length); left > 0; left--) {
    const size = Math.ceil((ranked.length - from) / left);
    groups.push(ranked.slice(from, from + size));
    from += size;
  }
  return groups;
}
