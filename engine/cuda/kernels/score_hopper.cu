// The scores of score.cu for many queries (a span of prefill), by wgmma: the queries' two parts lie in shared memory,
// 256 at a time; each warpgroup takes 64 logical pages at a time straight into registers. Contract: CONTRACT.md.
#include "page.cuh"
#include "hopper.cuh"

#define THREADS 256
#define WARPGROUP 128
#define WARPGROUPS (THREADS / WARPGROUP)
#define QUERIES 256
#define PAGES 16
// Minimum and maximum side by side: channels of the product, in columns of 64, each 256 rows of 128 bytes.
#define CHANNELS (2 * HEAD_DIM)
#define COLUMN (QUERIES * 128)
#define PIECES (CHANNELS / 32)
#define SCORE_HOPPER_SHARED (CHANNELS / 64 * COLUMN + 1024)

struct Asking { const element* q; int64 rowStride; int group, numQueries; };

__device__ __forceinline__ uint32 negativePart(uint32 pair) { return packElements(fminf(lowElement(pair), 0), fminf(highElement(pair), 0)); }
__device__ __forceinline__ uint32 positivePart(uint32 pair) { return packElements(fmaxf(lowElement(pair), 0), fmaxf(highElement(pair), 0)); }

// Queries first.. as the product's columns. Lane t of a fragment has channels 8t..8t+7 of each 32 at hand (one access
// of the statistics), so they stand where the two steps of 16 want its 2t, 2t+1, 2t+8, 2t+9. Past the end stands query 0.
__device__ __forceinline__ void placeQueries(uint32 shared, const Asking& asking, int first) {
  for (int i = threadIdx.x; i < QUERIES * (HEAD_DIM / 8); i += THREADS) {
    const int row = i / (HEAD_DIM / 8), unit = i % (HEAD_DIM / 8);
    const int index = first + row < asking.numQueries ? first + row : 0;
    const eight x = *(const eight*)(asking.q + (index / asking.group) * asking.rowStride + (index % asking.group) * HEAD_DIM + unit * 8);
#pragma unroll
    for (int part = 0; part < 2; part++) {
      const int channel = part * HEAD_DIM + unit * 8, t = channel % 32 / 8;
#pragma unroll
      for (int pair = 0; pair < 4; pair++) {
        const int place = channel / 32 * 32 + pair / 2 * 16 + pair % 2 * 8 + 2 * t;
        const uint32 at = shared + place / 64 * COLUMN + row * 128 + ((place % 64 / 8) ^ (row & 7)) * 16 + place % 8 * 2;
        const uint32 value = part == 0 ? negativePart(x.pair[pair]) : positivePart(x.pair[pair]);
        asm volatile("st.shared.u32 [%0], %1;" :: "r"(at), "r"(value) : "memory");
      }
    }
  }
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

struct Statistics { eight low[PIECES], high[PIECES]; };

// Four pages of a warp, the `four`-th of rowsOfFours.
__device__ __forceinline__ void loadStatistics(Statistics& pages, const element* statistics, int rows, int four) {
  const int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
  const element* low = statistics + statisticsOffset(__shfl_sync(FULL_WARP, rows, 4 * four + g / 4)) + (g % 4) * CHANNELS + 8 * t;
  const element* high = statistics + statisticsOffset(__shfl_sync(FULL_WARP, rows, 4 * four + g / 4 + 2)) + (g % 4) * CHANNELS + 8 * t;
#pragma unroll
  for (int piece = 0; piece < PIECES; piece++) {
    pages.low[piece] = *(const eight*)(low + 32 * piece);
    pages.high[piece] = *(const eight*)(high + 32 * piece);
  }
}

// The largest bound of each of a thread's two logical pages over the 256 queries.
__device__ __forceinline__ void boundPages(const Statistics& pages, uint32 shared, float& low, float& high) {
  float bounds[128];
  beginProducts();
#pragma unroll
  for (int step = 0; step < CHANNELS / 16; step++) {
    const eight& x = pages.low[step / 2];
    const eight& y = pages.high[step / 2];
    const uint32 a[4] = {x.pair[step % 2 * 2], y.pair[step % 2 * 2], x.pair[step % 2 * 2 + 1], y.pair[step % 2 * 2 + 1]};
    multiplyWide(bounds, a, describeTile(shared + step / 4 * COLUMN + step % 4 * 32, 16), step > 0);
  }
  endProducts();
  awaitProducts<0>();
  low = fmaxf(bounds[0], bounds[1]);
  high = fmaxf(bounds[2], bounds[3]);
#pragma unroll
  for (int i = 4; i < 128; i += 4) {
    low = fmaxf(low, fmaxf(bounds[i], bounds[i + 1]));
    high = fmaxf(high, fmaxf(bounds[i + 2], bounds[i + 3]));
  }
}

// Over the four lanes of a row and the four logical pages of a page.
__device__ __forceinline__ float bestOfPage(float x) {
  for (int step = 1; step <= 8; step *= 2) x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, step));
  return x;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
score_hopper(const element* q, int rowStride, const element* statistics, const int* pageRows, int pageHeads, const int* scoreUnits,
             const int* chunks, const int* lists, const int* entries, const uint8* classOf, float* scores, int maxCandidates,
             int layer, int kvHeads, int group) {
  extern __shared__ eight dynamic[];
  const int unit = blockIdx.z, kvHead = blockIdx.y;
  letNextBegin();
  awaitInputs();
  if (scoreUnits[unit] < 0) return;
  const Chunk chunk = readChunk(chunks, scoreUnits[unit]);
  const List list = readList(lists, classOf, chunk, layer * kvHeads + kvHead);
  if (chunk.fresh == 0 || list.pick == 0 || list.pick == list.numCandidates) return;
  const Asking asking = {q + (int64)chunk.firstRow * rowStride + kvHead * group * HEAD_DIM, rowStride, group, chunk.askTokens * group};
  const int* candidates = entries + list.candidates;
  float* own = scores + ((int64)unit * kvHeads + kvHead) * group * maxCandidates;
  const uint32 shared = (sharedAddress(dynamic) + 1023) / 1024 * 1024;
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, step = gridDim.x * WARPGROUPS * PAGES;
  const auto rowsFrom = [&](int at) { return rowsOfFours(PageRows{pageRows, pageHeads}, candidates, at + warp % 4 * 4, step, list.numCandidates, kvHead); };

  for (int firstQuery = 0; firstQuery < asking.numQueries; firstQuery += QUERIES) {
    __syncthreads();
    placeQueries(shared, asking, firstQuery);
    __syncthreads();
    int first = (blockIdx.x * WARPGROUPS + warp / 4) * PAGES, rows = 0;
    for (int four = 0; first < list.numCandidates; first += step, four = (four + 1) % FOURS) {
      if (four == 0) rows = rowsFrom(first);
      const int lowPage = first + warp % 4 * 4 + lane / 16;
      Statistics pages;
      loadStatistics(pages, statistics, rows, four);
      float low, high;
      boundPages(pages, shared, low, high);
      low = bestOfPage(low);
      high = bestOfPage(high);
      // The same thread writes a page's score for all queries, so the maximum over them needs no atomics.
      if (lane % 16 == 0) {
        if (lowPage < list.numCandidates) own[lowPage] = firstQuery == 0 ? low : fmaxf(low, own[lowPage]);
        if (lowPage + 2 < list.numCandidates) own[lowPage + 2] = firstQuery == 0 ? high : fmaxf(high, own[lowPage + 2]);
      }
    }
  }
}
