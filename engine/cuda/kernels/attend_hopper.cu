// Attention over page lists for prefill on Hopper (after FlashAttention-3, arXiv 2407.08608). One warpgroup copies pages
// two at a time; two compute, 64 rows each, and overlap the softmax of one pair of pages with the products of the next.
// Pages lie swizzled in memory, so bulk copies bring them as wgmma reads them. Contract: CONTRACT.md.
#include "finished-list.cuh"
#include "hopper.cuh"

#define WARPGROUP 128
#define CONSUMERS 2
#define THREADS ((CONSUMERS + 1) * WARPGROUP)
#define ROWS 64
#define UNIT_ROWS (CONSUMERS * ROWS)
#define PAIR_TOKENS (2 * PAGE_TOKENS)
#define STEPS (HEAD_PAD / 16)
#define KEY_STEPS (PAIR_TOKENS / 16)
#define SUMS (HEAD_PAD / 2)
#define STAGES (HEAD_PAD > 64 ? 3 : 5)
// Bytes: 64 channels of a page; of a pair of pages; all channels of a pair.
#define PAGE_HALF (PAGE_TOKENS * 128)
#define PAIR_HALF (2 * PAGE_HALF)
#define PAIR (HALVES * PAIR_HALF)
#define BARRIERS (4 * STAGES)
// Dynamic shared memory: stages, barriers, and what aligning to 1024 bytes may cost.
#define ATTEND_HOPPER_SHARED (STAGES * 2 * PAIR + BARRIERS * 8 + 1024)
#define LOG2_E 1.4426950408889634f
// The base of the weights follows the maximum only when it grows by more than this power of two: the result is the
// same, and sums are seldom scaled.
#define SLACK 8.0f

// Stages of shared memory, and their barriers by address: a stage is full when its bytes have come, empty when all
// warps that compute have read it.
struct Ring { uint32 stages, barriers; };

__device__ __forceinline__ uint32 keyStage(const Ring& ring, int stage) { return ring.stages + stage * 2 * PAIR; }
__device__ __forceinline__ uint32 valueStage(const Ring& ring, int stage) { return keyStage(ring, stage) + PAIR; }
__device__ __forceinline__ uint32 keysFull(const Ring& ring, int stage) { return ring.barriers + stage * 32; }
__device__ __forceinline__ uint32 valuesFull(const Ring& ring, int stage) { return ring.barriers + stage * 32 + 8; }
__device__ __forceinline__ uint32 keysEmpty(const Ring& ring, int stage) { return ring.barriers + stage * 32 + 16; }
__device__ __forceinline__ uint32 valuesEmpty(const Ring& ring, int stage) { return ring.barriers + stage * 32 + 24; }

// A place in the ring that goes round: stage, and the parity of its present use.
struct Place { int stage, parity; };

__device__ __forceinline__ void advance(Place& place) {
  if (++place.stage < STAGES) return;
  place.stage = 0;
  place.parity ^= 1;
}

__device__ __forceinline__ float exp2Fast(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

// Two pages beside each other, 64 channels after 64 channels.
__device__ __forceinline__ void copyPair(uint32 to, const element* first, const element* second, uint32 full) {
  expectBytes(full, PAIR);
#pragma unroll
  for (int half = 0; half < HALVES; half++) {
    copyBulk(to + half * PAIR_HALF, first + half * PAGE_HALF / 2, PAGE_HALF, full);
    copyBulk(to + half * PAIR_HALF + PAGE_HALF, second + half * PAGE_HALF / 2, PAGE_HALF, full);
  }
}

// One warp: its lanes find pages' rows ahead, its first lane copies.
__device__ __forceinline__ void bringPages(const Ring& ring, const FinishedList& list, const element* keys, const element* values, const PageRows& pageRows, int kvHead) {
  const int lane = threadIdx.x % WARP;
  const int last = list.numEntries - 1;
  Place place = {0, 1};
  int rows = rowOf(pageRows, pageAt(list, min(lane, last)), kvHead);
  for (int entry = 0; entry < list.numEntries; entry += 2) {
    if (entry > 0 && entry % WARP == 0) rows = rowOf(pageRows, pageAt(list, min(entry + lane, last)), kvHead);
    // Of an odd number the last page comes twice; its second copy is hidden.
    const int64 first = rowOffset(__shfl_sync(FULL_WARP, rows, entry % WARP)), second = rowOffset(__shfl_sync(FULL_WARP, rows, entry % WARP + 1));
    if (lane == 0) {
      awaitPhase(keysEmpty(ring, place.stage), place.parity);
      copyPair(keyStage(ring, place.stage), keys + first, keys + second, keysFull(ring, place.stage));
      awaitPhase(valuesEmpty(ring, place.stage), place.parity);
      copyPair(valueStage(ring, place.stage), values + first, values + second, valuesFull(ring, place.stage));
    }
    __syncwarp();
    advance(place);
  }
}

// What a thread of a computing warpgroup has: rows g and g + 8 of its warp.
struct Query {
  uint32 fragments[STEPS][4];
  int tokens[2];
  bool isThere[2];
};

struct Mix { float sum[SUMS]; float base[2], total[2]; };

__device__ __forceinline__ void loadQuery(Query& query, const element* q, int rowStride, const Chunk& chunk, int firstRow, int group, int firstHead) {
  const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int row = firstRow + threadIdx.x % WARPGROUP / WARP * 16 + g + 8 * i;
    const int token = row / group;
    query.tokens[i] = token;
    query.isThere[i] = token < chunk.tokens;
    const element* at = query.isThere[i] ? q + (int64)(chunk.firstRow + token) * rowStride + (firstHead + row % group) * HEAD_DIM : q;
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
      query.fragments[step][i] = query.isThere[i] ? *(const uint32*)(at + step * 16 + 2 * t) : 0;
      query.fragments[step][i + 2] = query.isThere[i] ? *(const uint32*)(at + step * 16 + 8 + 2 * t) : 0;
    }
  }
}

// Begins scores = query . keys of a pair: [64 rows, 128 keys]
__device__ __forceinline__ void beginScores(float (&scores)[64], const Query& query, uint32 stage) {
#pragma unroll
  for (int step = 0; step < STEPS; step++) {
    multiplyWide<0>(scores, query.fragments[step], describeTile(stage + step / 4 * PAIR_HALF + step % 4 * 32, 16), step > 0);
  }
}

// Begins sum += weights . values of a pair.
__device__ __forceinline__ void beginMix(Mix& mix, const uint32 (&weights)[KEY_STEPS][4], uint32 stage) {
#pragma unroll
  for (int step = 0; step < KEY_STEPS; step++) multiplyWide<1>(mix.sum, weights[step], describeTile(stage + step * 16 * 128, PAIR_HALF), true);
}

__device__ __forceinline__ void hidePair(float (&scores)[64], const FinishedList& list, int entry, const Query& query, int window) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int page = 0; page < 2; page++) {
    const Visible visible = entry + page < list.numEntries ? visibleAt(list, entry + page) : Visible{0, 0, NOT_OWN, 0};
#pragma unroll
    for (int i = 0; i < 32; i++) {
      const int slot = i / 4 * 8 + 2 * t + i % 2;
      if (!isVisible(visible, slot, query.tokens[i / 2 % 2], list.start, window)) scores[page * 32 + i] = NEGATIVE_INFINITY;
    }
  }
}

// Scores become weights of a new base; -> by how much what was summed before shrinks.
__device__ __forceinline__ void weigh(float (&scores)[64], Mix& mix, float (&shrink)[2], float scale) {
#pragma unroll
  for (int i = 0; i < 2; i++) {
    float most = scores[2 * i];
#pragma unroll
    for (int tile = 0; tile < 16; tile++) most = fmaxf(most, fmaxf(scores[tile * 4 + 2 * i], scores[tile * 4 + 2 * i + 1]));
    most = fmaxf(most, __shfl_xor_sync(FULL_WARP, most, 1));
    most = fmaxf(most, __shfl_xor_sync(FULL_WARP, most, 2)) * scale;
    const float base = most > mix.base[i] + SLACK ? most : mix.base[i];
    // Nothing visible yet: any finite base gives weights of zero.
    const float used = base == NEGATIVE_INFINITY ? 0 : base;
    shrink[i] = exp2Fast(mix.base[i] - used);
    mix.base[i] = base;
    float total = 0;
#pragma unroll
    for (int tile = 0; tile < 16; tile++) {
#pragma unroll
      for (int j = tile * 4 + 2 * i; j < tile * 4 + 2 * i + 2; j++) {
        scores[j] = exp2Fast(scores[j] * scale - used);
        total += scores[j];
      }
    }
    mix.total[i] = mix.total[i] * shrink[i] + total;
  }
}

__device__ __forceinline__ void shrinkSums(Mix& mix, const float (&shrink)[2]) {
  if (!__any_sync(FULL_WARP, shrink[0] != 1.0f || shrink[1] != 1.0f)) return;
#pragma unroll
  for (int i = 0; i < SUMS; i++) mix.sum[i] *= shrink[i / 2 % 2];
}

__device__ __forceinline__ void packWeights(uint32 (&weights)[KEY_STEPS][4], const float (&scores)[64]) {
#pragma unroll
  for (int step = 0; step < KEY_STEPS; step++) {
#pragma unroll
    for (int i = 0; i < 4; i++) weights[step][i] = packElements(scores[step * 8 + 2 * i], scores[step * 8 + 2 * i + 1]);
  }
}

__device__ __forceinline__ void storeMix(const Mix& mix, const Query& query, element* out, const Chunk& chunk, int firstRow, int group, int firstHead, int heads) {
  const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    float total = mix.total[i];
    total += __shfl_xor_sync(FULL_WARP, total, 1);
    total += __shfl_xor_sync(FULL_WARP, total, 2);
    if (!query.isThere[i]) continue;
    const float share = 1 / total;
    const int row = firstRow + threadIdx.x % WARPGROUP / WARP * 16 + g + 8 * i;
    element* to = out + ((int64)(chunk.firstRow + query.tokens[i]) * heads + firstHead + row % group) * HEAD_DIM;
#pragma unroll
    for (int tile = 0; tile < HEAD_DIM / 8; tile++) {
      *(uint32*)(to + tile * 8 + 2 * t) = packElements(mix.sum[tile * 4 + 2 * i] * share, mix.sum[tile * 4 + 2 * i + 1] * share);
    }
  }
}

// The first entry that hides a token from a query of tokens firstToken..
__device__ __forceinline__ int firstHiding(const FinishedList& list, int firstToken, int window) {
  if (window > 0) return 0;
  if (!list.isMerged && list.numListed > 0 && list.lastTokens < PAGE_TOKENS) return list.numListed - 1;
  if (!list.isMerged && list.start % PAGE_TOKENS != 0) return list.numListed;
  return list.numListed + (list.start + firstToken + 1) / PAGE_TOKENS - list.start / PAGE_TOKENS;
}

// The turns of the two warpgroups: one multiplies while the other weighs.
__device__ __forceinline__ void awaitOwnTurn(int consumer) { awaitTurn(1 + consumer, CONSUMERS * WARPGROUP); }
// The second warpgroup's last turn is nobody's to wait for.
__device__ __forceinline__ void giveOtherTurn(int consumer, bool isLast) {
  if (consumer == 0 || !isLast) giveTurn(2 - consumer, CONSUMERS * WARPGROUP);
}

__device__ __forceinline__ void release(uint32 barrier) {
  if (threadIdx.x % WARP == 0) arrive(barrier);
}

// `firstToken`: of the warp's rows.
__device__ __forceinline__ void readPairs(Mix& mix, const Query& query, const Ring& ring, const FinishedList& list, int consumer, int firstToken, int window, float scale) {
  const int hidesFrom = firstHiding(list, firstToken, window);
  float scores[64], shrink[2];
  uint32 weights[KEY_STEPS][4];
  Place keys = {0, 0}, values = {0, 0};

  awaitPhase(keysFull(ring, keys.stage), keys.parity);
  awaitOwnTurn(consumer);
  beginProducts();
  beginScores(scores, query, keyStage(ring, keys.stage));
  endProducts();
  giveOtherTurn(consumer, list.numEntries <= 2);
  awaitProducts<0>();
  release(keysEmpty(ring, keys.stage));
  advance(keys);
  if (hidesFrom < 2) hidePair(scores, list, 0, query, window);
  weigh(scores, mix, shrink, scale);
  packWeights(weights, scores);

  for (int entry = 2; entry < list.numEntries; entry += 2) {
    awaitPhase(keysFull(ring, keys.stage), keys.parity);
    awaitOwnTurn(consumer);
    beginProducts();
    beginScores(scores, query, keyStage(ring, keys.stage));
    endProducts();
    awaitPhase(valuesFull(ring, values.stage), values.parity);
    beginProducts();
    beginMix(mix, weights, valueStage(ring, values.stage));
    endProducts();
    giveOtherTurn(consumer, entry + 2 >= list.numEntries);
    awaitProducts<1>();
    release(keysEmpty(ring, keys.stage));
    advance(keys);
    if (entry + 2 > hidesFrom) hidePair(scores, list, entry, query, window);
    weigh(scores, mix, shrink, scale);
    awaitProducts<0>();
    release(valuesEmpty(ring, values.stage));
    advance(values);
    shrinkSums(mix, shrink);
    packWeights(weights, scores);
  }
  awaitPhase(valuesFull(ring, values.stage), values.parity);
  beginProducts();
  beginMix(mix, weights, valueStage(ring, values.stage));
  endProducts();
  awaitProducts<0>();
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
attend_hopper(const element* q, int rowStride, element* out, const element* keys, const element* values, const int* pageRows, int pageHeads, const int* units,
              const int* chunks, const int* lists, const int* entries, const int* entryPositions, const uint8* classOf,
              const int* selection, int maxPick, int layer, int layers, int kvHeads, int group, int window, float scale) {
  extern __shared__ eight shared[];
  const int unit = blockIdx.x, kvHead = blockIdx.y, heads = kvHeads * group;
  const int4 at = *(const int4*)(units + unit * 4);
  if (at.x < 0) return awaitInputs();
  const Chunk chunk = readChunk(chunks, at.x);
  const List list = readList(lists, classOf, chunk, layer * kvHeads + kvHead);
  const int firstRow = at.y * UNIT_ROWS;
  if (firstRow >= chunk.tokens * group) return awaitInputs();
  const int lastToken = min((firstRow + UNIT_ROWS - 1) / group, chunk.tokens - 1);
  const int* picked = selection + (list.pick > 0 ? selectionOffset(chunk.pickSlot, layer, layers, kvHead * group, heads, maxPick) : 0);
  const FinishedList finished = finishList(chunk, list, entries, entryPositions, picked, lastToken);

  letNextBegin();
  awaitInputs();
  const uint32 base = (sharedAddress(shared) + 1023) / 1024 * 1024;
  const Ring ring = {base, base + STAGES * 2 * PAIR};
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < STAGES; stage++) {
      initBarrier(keysFull(ring, stage), 1);
      initBarrier(valuesFull(ring, stage), 1);
      initBarrier(keysEmpty(ring, stage), CONSUMERS * 4);
      initBarrier(valuesEmpty(ring, stage), CONSUMERS * 4);
    }
    publishBarriers();
  }
  __syncthreads();

  if (threadIdx.x < WARPGROUP) {
    giveRegisters<24>();
    if (threadIdx.x < WARP) bringPages(ring, finished, keys, values, PageRows{pageRows, pageHeads}, kvHead);
  } else {
    takeRegisters<240>();
    const int consumer = threadIdx.x / WARPGROUP - 1;
    const int ownRow = firstRow + consumer * ROWS;
    if (consumer == 1) giveOtherTurn(consumer, false);
    Query query;
    loadQuery(query, q, rowStride, chunk, ownRow, group, kvHead * group);
    Mix mix;
#pragma unroll
    for (int i = 0; i < SUMS; i++) mix.sum[i] = 0;
    mix.base[0] = mix.base[1] = NEGATIVE_INFINITY;
    mix.total[0] = mix.total[1] = 0;
    readPairs(mix, query, ring, finished, consumer, (ownRow + threadIdx.x % WARPGROUP / WARP * 16) / group, window, scale * LOG2_E);
    storeMix(mix, query, out, chunk, ownRow, group, kvHead * group, heads);
  }
}
