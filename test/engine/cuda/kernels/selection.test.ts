// Scores against the bounds of the reference, picks against its choice, ties included.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { bestIndices, boundScore } from '../../../../engine/reference/page-score.ts';
import { bfloat16, KernelBench, reasonWithoutDevice } from './kernel-bench.ts';

const LOGICAL = 4;

describe.skipIf(reasonWithoutDevice !== null)('page selection', () => {
  let bench: KernelBench;
  beforeAll(() => { bench = new KernelBench(); });
  afterAll(() => { bench.close(); });

  test.each<[headDim: number, group: number, asking: number, candidates: number, perQueryHead: boolean]>([
    [128, 4, 1, 37, false], [128, 4, 1, 37, true], [64, 3, 128, 70, false], [16, 1, 5, 7, false], [6, 8, 1, 21, true], [128, 8, 100, 33, false], [32, 12, 1, 33, true],
  ])('scores: heads of %i, %i for a KV head, %i tokens ask for %i pages', (headDim, group, asking, numCandidates, perQueryHead) => {
    const [kvHeads, layers, layer, pages] = [2, 2, 1, numCandidates + 3];
    const heads = kvHeads * group;
    const width = heads * headDim;
    const q = bench.normal(asking * width);
    const first = bench.normal(pages * kvHeads * LOGICAL * headDim);
    const second = bench.normal(first.length);
    const least = Float64Array.from(first, (value, i) => Math.min(value, second[i]!));
    const most = Float64Array.from(first, (value, i) => Math.max(value, second[i]!));
    const rows = bench.pageRows(pages, kvHeads);
    // [rows, 4, 2, headDim]
    const statistics = new Float32Array(rows.count * LOGICAL * 2 * headDim).fill(NaN);
    for (let index = 0; index < pages * kvHeads * LOGICAL; index++) {
      const row = rows.of(Math.floor(index / LOGICAL / kvHeads), Math.floor(index / LOGICAL) % kvHeads);
      const at = (row * LOGICAL + index % LOGICAL) * 2 * headDim;
      statistics.set(least.subarray(index * headDim, (index + 1) * headDim), at);
      statistics.set(most.subarray(index * headDim, (index + 1) * headDim), at + headDim);
    }
    const candidates = bench.random.shuffled(Array.from({ length: pages }, (_, i) => i)).slice(0, numCandidates);
    const pick = Math.ceil(numCandidates / 3);
    const [maxCandidates, maxPick] = [numCandidates + 2, pick + 1];
    const at = {
      units: bench.ints([-1, 0]), chunks: bench.ints([0, asking, 9999, 0, 1, 1, asking, 0, 0, perQueryHead ? 1 : 0, 0, 0, 0, 0, 0, 0]),
      lists: bench.ints([0, 0, 0, numCandidates, pick, 0, perQueryHead ? 1 : 0, 0]), entries: bench.ints(candidates), classOf: bench.up(new Uint8Array(layers * kvHeads)),
      q: bench.up(bfloat16(q)), statistics: bench.up(bfloat16(statistics)),
    };
    const wantedOf = (head: number) => candidates.map((page) => {
      const kvHead = Math.floor(head / group);
      const members = perQueryHead ? [head] : Array.from({ length: group }, (_, member) => kvHead * group + member);
      let best = -Infinity;
      for (let token = 0; token < asking; token++) {
        for (const member of members) {
          const query = Float64Array.from(q.subarray(token * width + member * headDim, token * width + (member + 1) * headDim));
          for (let logical = 0; logical < LOGICAL; logical++) {
            const from = ((page * kvHeads + kvHead) * LOGICAL + logical) * headDim;
            best = Math.max(best, boundScore(query, least.subarray(from, from + headDim), most.subarray(from, from + headDim)));
          }
        }
      }
      return best;
    });
    const byWgmma = bench.isHopper && !perQueryHead && headDim % 32 === 0;
    for (const [name, ...settled] of [['score', 0], ['score', 1], ...(byWgmma ? [['score_hopper']] : [])] as [string, ...number[]][]) {
      const scores = bench.poisoned(2 * heads * maxCandidates * 4);
      const hopper = name === 'score_hopper';
      bench.kernel({ file: name, name, parameters: `pippippppppiiii${'i'.repeat(settled.length)}`, defines: { HEAD_DIM: headDim } }).launch(
        { grid: [2, kvHeads, 2], block: [hopper ? 256 : 128], shared: hopper ? headDim * 1024 + 1024 : 0 },
        at.q.address, width, at.statistics.address, ...rows.args, at.units.address, at.chunks.address, at.lists.address, at.entries.address, at.classOf.address, scores.address, maxCandidates, layer, kvHeads, group, ...settled);
      const selection = bench.poisoned(2 * layers * heads * maxPick * 4);
      bench.kernel({ file: 'pick', name: 'pick', parameters: 'pippppppiiiii' }).launch(
        { grid: [heads, 2], block: [256] },
        scores.address, maxCandidates, at.units.address, at.chunks.address, at.lists.address, at.entries.address, at.classOf.address, selection.address, maxPick, layer, layers, kvHeads, group);
      const got = bench.floats(scores, 2 * heads * maxCandidates);
      const picked = bench.integers(selection, 2 * layers * heads * maxPick);
      for (let head = 0; head < heads; head += perQueryHead ? 1 : group) {
        const own = got.subarray((heads + head) * maxCandidates, (heads + head) * maxCandidates + numCandidates);
        expect(bench.error(own, wantedOf(head)), `${name}, seed ${bench.seed}`).toBeLessThan(2e-6);
        const from = ((layers + layer) * heads + head) * maxPick;
        expect([...picked.subarray(from, from + pick + 1)]).toEqual([...bestIndices(Float64Array.from(own), pick).map((index) => candidates[index]!), -1]);
      }
    }
  });

  test.each([[1, 1, 1], [5, 5, 2], [1000, 64, 4], [4096, 60, 1000], [20000, 512, 50], [20000, 19999, 7], [9000, 1, 1_000_000]])('%i candidates, %i picked, %i different scores', (count, pick, different) => {
    const scores = Float32Array.from({ length: count }, (_, i) => (i % 7 === 3 ? -0 : bench.random.below(different) - Math.floor(different / 2)));
    if (count > 100) scores.set([Infinity, -Infinity], 17);
    for (const threads of [256, 1024]) {
      const selection = bench.poisoned((pick + 1) * 4);
      bench.kernel({ file: 'pick', name: 'pick', parameters: 'pippppppiiiii' }).launch(
        { grid: [1, 1], block: [threads] }, bench.up(scores).address, count, bench.ints([0]).address, bench.ints([0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]).address,
        bench.ints([0, 0, 0, count, pick, 0, 0, 0]).address, bench.ints(Array.from({ length: count }, (_, i) => 2 * i + 1)).address, bench.up(new Uint8Array(16)).address, selection.address, pick + 1, 0, 1, 1, 1);
      expect([...bench.integers(selection, pick + 1)], `${threads} threads, seed ${bench.seed}`).toEqual([...bestIndices(Float64Array.from(scores), pick).map((index) => 2 * index + 1), -1]);
    }
  });
});
