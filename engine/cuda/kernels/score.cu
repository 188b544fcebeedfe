// Upper bounds of q.k over the keys of a page, from minimum and maximum of each logical page (Quest, arXiv 2406.10774;
// LServe, arXiv 2502.14866). sum max(q * max, q * min) = max(q, 0) . max + min(q, 0) . min: a matrix product, so the
// tensor cores do it, for one token and for a span of 128 alike. Contract: CONTRACT.md.
#include "page.cuh"
#include "mma.cuh"

#define THREADS 128
#define WARPS (THREADS / WARP)
#define PAGES_PER_WARP 4
#define PAGES_PER_BLOCK (WARPS * PAGES_PER_WARP)
// Of a multiprocessor at once, which bounds registers: the SCORE_BLOCKS_PER_MULTIPROCESSOR of attention-launches.ts run as one
// wave. Wider heads have twice the statistics in registers, and run as two.
#define BLOCKS_AT_ONCE (HEAD_DIM > 128 ? 2 : 4)

struct Asking { const element* q; int64 rowStride; int group, numQueries; };

// Query n of a KV head: token n / group, member n % group; past the end the first, which changes no maximum.
__device__ __forceinline__ const element* queryRow(const Asking& asking, int n) {
  const int index = n < asking.numQueries ? n : 0;
  return asking.q + (index / asking.group) * asking.rowStride + (index % asking.group) * HEAD_DIM;
}

#if HEAD_DIM % 16 == 0
// 16-byte pieces of a row of 2 * HEAD_DIM statistics that a lane takes, at channels 32 * piece + 8 * t. The order of
// channels in a product is free, so lane t's eight stand where the fragment wants 2t, 2t + 8 of two steps.
#define PIECES (HEAD_DIM / 16)

struct Statistics { eight low[PIECES], high[PIECES]; };

__device__ __forceinline__ uint32 negativePart(uint32 pair) { return packElements(fminf(lowElement(pair), 0), fminf(highElement(pair), 0)); }
__device__ __forceinline__ uint32 positivePart(uint32 pair) { return packElements(fmaxf(lowElement(pair), 0), fmaxf(highElement(pair), 0)); }

// Bounds of 16 logical pages for 8 queries: rows g and g + 8, columns 2t and 2t + 1.
__device__ __forceinline__ void boundTile(float (&bounds)[4], const Statistics& pages, const element* query, int t) {
  bounds[0] = bounds[1] = bounds[2] = bounds[3] = 0;
#pragma unroll
  for (int piece = 0; piece < PIECES; piece++) {
    const int channel = 32 * piece + 8 * t;
    const bool isMinimum = channel < HEAD_DIM;
    const eight raw = *(const eight*)(query + (isMinimum ? channel : channel - HEAD_DIM));
    uint32 part[4];
#pragma unroll
    for (int i = 0; i < 4; i++) part[i] = isMinimum ? negativePart(raw.pair[i]) : positivePart(raw.pair[i]);
#pragma unroll
    for (int step = 0; step < 2; step++) {
      const uint32 a[4] = {pages.low[piece].pair[2 * step], pages.high[piece].pair[2 * step],
                           pages.low[piece].pair[2 * step + 1], pages.high[piece].pair[2 * step + 1]};
      multiplyTile(bounds, a, part[2 * step], part[2 * step + 1]);
    }
  }
}

__device__ __forceinline__ float bestOverLogicalPages(float x) {
  x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, 4));
  return fmaxf(x, __shfl_xor_sync(FULL_WARP, x, 8));
}

// Four pages of a warp, the `four`-th of rowsOfFours: rows 0..3 of the tile are the first page's logical pages, and so on.
__device__ __forceinline__ Statistics loadStatistics(const element* statistics, int rows, int four) {
  const int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
  const element* low = statistics + statisticsOffset(__shfl_sync(FULL_WARP, rows, 4 * four + g / 4)) + (g % 4) * 2 * HEAD_DIM + 8 * t;
  const element* high = statistics + statisticsOffset(__shfl_sync(FULL_WARP, rows, 4 * four + g / 4 + 2)) + (g % 4) * 2 * HEAD_DIM + 8 * t;
  Statistics pages;
#pragma unroll
  for (int piece = 0; piece < PIECES; piece++) {
    pages.low[piece] = *(const eight*)(low + 32 * piece);
    pages.high[piece] = *(const eight*)(high + 32 * piece);
  }
  return pages;
}

__device__ __forceinline__ void scorePages(const Statistics& pages, int first, int numCandidates, const Asking& asking, bool perQueryHead,
                                           float* scores, int maxCandidates) {
  const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
  const int lowPage = first + g / 4, highPage = lowPage + 2;
  float bestLow = NEGATIVE_INFINITY, bestHigh = NEGATIVE_INFINITY;
  for (int n = 0; n < asking.numQueries; n += 8) {
    float bounds[4];
    boundTile(bounds, pages, queryRow(asking, n + g), t);
    bestLow = fmaxf(bestLow, fmaxf(bounds[0], bounds[1]));
    bestHigh = fmaxf(bestHigh, fmaxf(bounds[2], bounds[3]));
    if (!perQueryHead) continue;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float best = bestOverLogicalPages(bounds[i]);
      const int query = n + 2 * t + i % 2, page = i < 2 ? lowPage : highPage;
      if (g % 4 == 0 && query < asking.numQueries && page < numCandidates) scores[(int64)query * maxCandidates + page] = best;
    }
  }
  if (perQueryHead) return;
  bestLow = bestOverLogicalPages(bestLow);
  bestHigh = bestOverLogicalPages(bestHigh);
#pragma unroll
  for (int step = 1; step <= 2; step *= 2) {
    bestLow = fmaxf(bestLow, __shfl_xor_sync(FULL_WARP, bestLow, step));
    bestHigh = fmaxf(bestHigh, __shfl_xor_sync(FULL_WARP, bestHigh, step));
  }
  if (lane % 16 != 0) return;
  if (lowPage < numCandidates) scores[lowPage] = bestLow;
  if (highPage < numCandidates) scores[highPage] = bestHigh;
}
#else
// Heads that are no whole tiles: lane l has logical page l % 16 of the warp's four pages, every second query.
struct Statistics { const element* least; };

__device__ __forceinline__ Statistics loadStatistics(const element* statistics, int rows, int four) {
  return Statistics{statistics + statisticsOffset(__shfl_sync(FULL_WARP, rows, 4 * four + threadIdx.x % 16 / 4)) + threadIdx.x % 4 * 2 * HEAD_DIM};
}

__device__ __forceinline__ void scorePages(const Statistics& pages, int first, int numCandidates, const Asking& asking, bool perQueryHead,
                                           float* scores, int maxCandidates) {
  const int lane = threadIdx.x % WARP, page = first + lane % 16 / 4;
  const element* least = pages.least;
  float best = NEGATIVE_INFINITY;
  for (int n = 0; n < asking.numQueries; n += 2) {
    const element* query = queryRow(asking, n + lane / 16);
    float bound = 0;
    for (int channel = 0; channel < HEAD_DIM; channel++) {
      const float x = toFloat(query[channel]);
      bound += fmaxf(x * toFloat(least[channel]), x * toFloat(least[HEAD_DIM + channel]));
    }
    best = fmaxf(best, bound);
    if (!perQueryHead) continue;
    bound = fmaxf(bound, __shfl_xor_sync(FULL_WARP, bound, 1));
    bound = fmaxf(bound, __shfl_xor_sync(FULL_WARP, bound, 2));
    const int asked = n + lane / 16;
    if (lane % 4 == 0 && asked < asking.numQueries && page < numCandidates) scores[(int64)asked * maxCandidates + page] = bound;
  }
  if (perQueryHead) return;
  for (int step = 1; step <= 16; step *= 2) if (step != 4 && step != 8) best = fmaxf(best, __shfl_xor_sync(FULL_WARP, best, step));
  if (lane < 16 && lane % 4 == 0 && page < numCandidates) scores[page] = best;
}
#endif

// areSettled: no kernel that may still run writes statistics of candidates, so the first of them are read before q is there.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS_AT_ONCE)
score(const element* q, int rowStride, const element* statistics, const int* pageRows, int pageHeads, const int* scoreUnits,
      const int* chunks, const int* lists, const int* entries, const uint8* classOf, float* scores, int maxCandidates,
      int layer, int kvHeads, int group, int areSettled) {
  const int unit = blockIdx.z, kvHead = blockIdx.y;
  if (scoreUnits[unit] < 0) return awaitInputs();
  const Chunk chunk = readChunk(chunks, scoreUnits[unit]);
  const List list = readList(lists, classOf, chunk, layer * kvHeads + kvHead);
  int first = blockIdx.x * PAGES_PER_BLOCK + threadIdx.x / WARP * PAGES_PER_WARP;
  if (chunk.fresh == 0 || list.pick == 0 || list.pick == list.numCandidates || first >= list.numCandidates) return awaitInputs();
  letNextBegin();
  if (areSettled == 0) awaitInputs();
  const int step = gridDim.x * PAGES_PER_BLOCK;
  const auto rowsFrom = [&](int at) { return rowsOfFours(PageRows{pageRows, pageHeads}, entries + list.candidates, at, step, list.numCandidates, kvHead); };
  int rows = rowsFrom(first), four = 0;
  Statistics pages = loadStatistics(statistics, rows, four);
  awaitInputs();
  const Asking asking = {q + (int64)chunk.firstRow * rowStride + kvHead * group * HEAD_DIM, rowStride, group, chunk.askTokens * group};
  float* own = scores + ((int64)unit * kvHeads + kvHead) * group * maxCandidates;
  while (true) {
    scorePages(pages, first, list.numCandidates, asking, list.perQueryHead != 0, own, maxCandidates);
    first += step;
    if (first >= list.numCandidates) return;
    four = (four + 1) % FOURS;
    if (four == 0) rows = rowsFrom(first);
    pages = loadStatistics(statistics, rows, four);
  }
}
