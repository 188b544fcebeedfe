// The best candidates of each list by radix selection: the k-th largest score byte by byte, then one ordered pass. Of
// equal scores the lower index wins, and picks come in the order of the candidates, as bestIndices of
// engine/reference/page-score.ts has it. One block for each list. Contract: CONTRACT.md.
#define HEAD_DIM 64
#include "page.cuh"

#define THREADS 256
#define WARPS (THREADS / WARP)
#define KEPT 8192

// Larger for larger scores; 0 for NaN. -0 counts as 0.
__device__ __forceinline__ uint32 rankOf(float score) {
  if (isnan(score)) return 0;
  const uint32 bits = __float_as_uint(score + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

struct Ranks { const float* scores; const uint32* kept; int count; };

__device__ __forceinline__ uint32 rankAt(const Ranks& ranks, int i) { return i < KEPT ? ranks.kept[i] : rankOf(ranks.scores[i]); }

// Sum of the threads before this one, and of all. `scratch`: an int for each warp.
__device__ __forceinline__ int sumBefore(int x, int& total, int* scratch) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  int sum = x;
  for (int step = 1; step < WARP; step *= 2) {
    const int other = __shfl_up_sync(FULL_WARP, sum, step);
    if (lane >= step) sum += other;
  }
  __syncthreads();
  if (lane == WARP - 1) scratch[warp] = sum;
  __syncthreads();
  int before = 0;
  total = 0;
  for (int i = 0; i < WARPS; i++) {
    if (i < warp) before += scratch[i];
    total += scratch[i];
  }
  return before + sum - x;
}

// The `wanted`-th largest rank; `wanted` becomes how many of those equal to it are wanted.
__device__ __forceinline__ uint32 findThreshold(const Ranks& ranks, int& wanted, int* histogram, int* scratch, int* found) {
  uint32 prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    histogram[threadIdx.x] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < ranks.count; i += THREADS) {
      const uint32 rank = rankAt(ranks, i);
      if (shift == 24 || rank >> (shift + 8) == prefix >> (shift + 8)) atomicAdd(&histogram[(rank >> shift) & 255], 1);
    }
    __syncthreads();
    // Thread i looks at byte 255 - i, so that what stands before it is larger.
    const int own = histogram[255 - threadIdx.x];
    int total;
    const int larger = sumBefore(own, total, scratch);
    if (larger < wanted && larger + own >= wanted) {
      found[0] = 255 - threadIdx.x;
      found[1] = wanted - larger;
    }
    __syncthreads();
    prefix |= (uint32)found[0] << shift;
    wanted = found[1];
    __syncthreads();
  }
  return prefix;
}

// Each thread has a run of consecutive candidates, so that two sums give every pick its place.
__device__ __forceinline__ void writePicks(const Ranks& ranks, uint32 threshold, int wantedEqual, const int* candidates, int* to, int* scratch) {
  const int each = (ranks.count + THREADS - 1) / THREADS;
  const int from = min((int)threadIdx.x * each, ranks.count), end = min(from + each, ranks.count);
  int numEqual = 0, numLarger = 0, total;
  for (int i = from; i < end; i++) {
    const uint32 rank = rankAt(ranks, i);
    numEqual += rank == threshold;
    numLarger += rank > threshold;
  }
  const int equalBefore = sumBefore(numEqual, total, scratch);
  const int largerBefore = sumBefore(numLarger, total, scratch);
  int equalSeen = equalBefore, place = largerBefore + min(equalBefore, wantedEqual);
  for (int i = from; i < end; i++) {
    const uint32 rank = rankAt(ranks, i);
    const bool isPicked = rank > threshold || (rank == threshold && equalSeen < wantedEqual);
    equalSeen += rank == threshold;
    if (isPicked) to[place++] = candidates[i];
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
pick(const float* scores, int maxCandidates, const int* scoreUnits, const int* chunks, const int* lists, const int* entries,
     const uint8* classOf, int* selection, int maxPick, int layer, int layers, int kvHeads, int group) {
  __shared__ uint32 kept[KEPT];
  __shared__ int histogram[256], scratch[WARPS], found[2];
  const int unit = blockIdx.y, head = blockIdx.x;
  if (scoreUnits[unit] < 0) return;
  const Chunk chunk = readChunk(chunks, scoreUnits[unit]);
  const List list = readList(lists, classOf, chunk, layer * kvHeads + head / group);
  if (chunk.fresh == 0 || list.pick == 0 || (list.perQueryHead == 0 && head % group != 0)) return;
  const int* candidates = entries + list.candidates;
  int* to = selection + selectionOffset(chunk.pickSlot, layer, layers, head, kvHeads * group, maxPick);
  if (list.pick == list.numCandidates) {
    for (int i = threadIdx.x; i < list.pick; i += THREADS) to[i] = candidates[i];
    return;
  }
  const float* own = scores + ((int64)unit * kvHeads * group + head) * maxCandidates;
  for (int i = threadIdx.x; i < min(list.numCandidates, KEPT); i += THREADS) kept[i] = rankOf(own[i]);
  __syncthreads();
  const Ranks ranks = {own, kept, list.numCandidates};
  int wanted = list.pick;
  const uint32 threshold = findThreshold(ranks, wanted, histogram, scratch, found);
  writePicks(ranks, threshold, wanted, candidates, to, scratch);
}
