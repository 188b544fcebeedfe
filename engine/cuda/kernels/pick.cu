// The best candidates of each list by radix selection: the k-th largest score digit by digit, then one ordered pass. Of
// equal scores the lower index wins, and picks come in the order of the candidates, as bestIndices of
// engine/reference/page-score.ts has it. One block for each list. Contract: CONTRACT.md.
#define HEAD_DIM 64
#include "page.cuh"

// Threads of a block, whole warps: few candidates want few, whose barriers cost less.
#define THREADS ((int)blockDim.x)
#define MOST_THREADS 1024
#define MOST_WARPS (MOST_THREADS / WARP)
#define WARPS (THREADS / WARP)
// Ranks that stay in shared memory; those beyond are made anew.
#define KEPT 8192
#define DIGIT_BITS 8
#define DIGITS (1 << DIGIT_BITS)

// Larger for larger scores; 0 for NaN. -0 counts as 0.
__device__ __forceinline__ uint32 rankOf(float score) {
  if (isnan(score)) return 0;
  const uint32 bits = __float_as_uint(score + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

struct Ranks { const float* scores; const uint32* kept; int count; };

__device__ __forceinline__ uint32 rankAt(const Ranks& ranks, int i) { return i < KEPT ? ranks.kept[i] : rankOf(ranks.scores[i]); }

// Least and largest rank of all threads' own, in each.
__device__ __forceinline__ void spanOverBlock(uint32& least, uint32& most, uint32* scratch) {
  least = __reduce_min_sync(FULL_WARP, least);
  most = __reduce_max_sync(FULL_WARP, most);
  if (threadIdx.x % WARP == 0) {
    scratch[threadIdx.x / WARP] = least;
    scratch[MOST_WARPS + threadIdx.x / WARP] = most;
  }
  __syncthreads();
  for (int warp = 0; warp < WARPS; warp++) {
    least = min(least, scratch[warp]);
    most = max(most, scratch[MOST_WARPS + warp]);
  }
}

// One warp: the digit at which the count of larger digits and it reaches `wanted`, how many of its own are wanted, and whether
// those are all it has.
__device__ __forceinline__ void findDigit(const int* histogram, int wanted, int* found) {
  const int lane = threadIdx.x % WARP;
  int own[DIGITS / WARP], sum = 0;
  // Lane 0 has the largest digits.
#pragma unroll
  for (int i = 0; i < DIGITS / WARP; i++) sum += own[i] = histogram[DIGITS - 1 - lane * (DIGITS / WARP) - i];
  int larger = sum;
  for (int step = 1; step < WARP; step *= 2) {
    const int other = __shfl_up_sync(FULL_WARP, larger, step);
    if (lane >= step) larger += other;
  }
  larger -= sum;
#pragma unroll
  for (int i = 0; i < DIGITS / WARP; i++) {
    if (larger < wanted && larger + own[i] >= wanted) {
      found[0] = DIGITS - 1 - lane * (DIGITS / WARP) - i;
      found[1] = wanted - larger;
      found[2] = wanted - larger == own[i];
    }
    larger += own[i];
  }
}

// The `wanted`-th largest rank, or a lower one that no rank lies between; `wanted` becomes how many of those equal to it are
// wanted. Ranks lie in least..most, so the search begins at the first bit in which these differ, and it ends where all that
// have the digits so far are wanted. histograms: [4, DIGITS], zero.
__device__ __forceinline__ uint32 findThreshold(const Ranks& ranks, uint32 least, uint32 most, int& wanted, int* histograms, int* found) {
  int open = least == most ? 0 : 32 - __clz(least ^ most);
  uint32 prefix = open == 32 ? 0 : most >> open << open;
  bool areAll = false;
  for (int* histogram = histograms; open > 0 && !areAll; histogram += DIGITS) {
    const int shift = max(open - DIGIT_BITS, 0);
    for (int i = threadIdx.x; i < ranks.count; i += THREADS) {
      const uint32 rank = rankAt(ranks, i);
      if (((rank ^ prefix) >> shift) < (1u << (open - shift))) atomicAdd(&histogram[(rank ^ prefix) >> shift], 1);
    }
    __syncthreads();
    if (threadIdx.x < WARP) findDigit(histogram, wanted, found);
    __syncthreads();
    prefix |= (uint32)found[0] << shift;
    wanted = found[1];
    areAll = found[2] != 0;
    open = shift;
  }
  return prefix;
}

// Sums of the threads before this one, of two numbers at once.
__device__ __forceinline__ int2 sumBefore(int2 own, uint32* scratch) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  int2 sum = own;
  for (int step = 1; step < WARP; step *= 2) {
    const int x = __shfl_up_sync(FULL_WARP, sum.x, step), y = __shfl_up_sync(FULL_WARP, sum.y, step);
    if (lane >= step) { sum.x += x; sum.y += y; }
  }
  __syncthreads();
  if (lane == WARP - 1) { scratch[warp] = sum.x; scratch[MOST_WARPS + warp] = sum.y; }
  __syncthreads();
  int2 before = make_int2(sum.x - own.x, sum.y - own.y);
  for (int i = 0; i < warp; i++) { before.x += scratch[i]; before.y += scratch[MOST_WARPS + i]; }
  return before;
}

// Each thread has a run of consecutive candidates, so that sums give every pick its place.
__device__ __forceinline__ void writePicks(const Ranks& ranks, uint32 threshold, int wantedEqual, const int* candidates, int* to, uint32* scratch) {
  const int each = (ranks.count + THREADS - 1) / THREADS;
  const int from = min((int)threadIdx.x * each, ranks.count), end = min(from + each, ranks.count);
  int2 own = make_int2(0, 0);
  for (int i = from; i < end; i++) {
    const uint32 rank = rankAt(ranks, i);
    own.x += rank == threshold;
    own.y += rank > threshold;
  }
  const int2 before = sumBefore(own, scratch);
  int equalSeen = before.x, place = before.y + min(before.x, wantedEqual);
  for (int i = from; i < end; i++) {
    const uint32 rank = rankAt(ranks, i);
    const bool isPicked = rank > threshold || (rank == threshold && equalSeen < wantedEqual);
    equalSeen += rank == threshold;
    if (isPicked) to[place++] = candidates[i];
  }
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS)
pick(const float* scores, int maxCandidates, const int* scoreUnits, const int* chunks, const int* lists, const int* entries,
     const uint8* classOf, int* selection, int maxPick, int layer, int layers, int kvHeads, int group) {
  __shared__ uint32 kept[KEPT];
  __shared__ int histograms[32 / DIGIT_BITS * DIGITS], found[3];
  __shared__ uint32 scratch[2 * MOST_WARPS];
  const int unit = blockIdx.y, head = blockIdx.x;
  if (scoreUnits[unit] < 0) return awaitInputs();
  const Chunk chunk = readChunk(chunks, scoreUnits[unit]);
  const List list = readList(lists, classOf, chunk, layer * kvHeads + head / group);
  if (chunk.fresh == 0 || list.pick == 0 || (list.perQueryHead == 0 && head % group != 0)) return awaitInputs();
  letNextBegin();
  awaitInputs();
  const int* candidates = entries + list.candidates;
  int* to = selection + selectionOffset(chunk.pickSlot, layer, layers, head, kvHeads * group, maxPick);
  if (list.pick == list.numCandidates) {
    for (int i = threadIdx.x; i < list.pick; i += THREADS) to[i] = candidates[i];
    return;
  }
  const float* own = scores + ((int64)unit * kvHeads * group + head) * maxCandidates;
  for (int i = threadIdx.x; i < 32 / DIGIT_BITS * DIGITS; i += THREADS) histograms[i] = 0;
  uint32 least = 0xffffffffu, most = 0;
  for (int i = threadIdx.x; i < list.numCandidates; i += THREADS) {
    const uint32 rank = rankOf(own[i]);
    if (i < KEPT) kept[i] = rank;
    least = min(least, rank);
    most = max(most, rank);
  }
  spanOverBlock(least, most, scratch);
  const Ranks ranks = {own, kept, list.numCandidates};
  int wanted = list.pick;
  const uint32 threshold = findThreshold(ranks, least, most, wanted, histograms, found);
  writePicks(ranks, threshold, wanted, candidates, to, scratch);
}
