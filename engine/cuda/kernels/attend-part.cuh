// Attention over page lists by mma (8.0 and later): a block takes 64 rows (tokens x query heads of one KV head) and a part of
// the list; parts are joined by the last block to finish (flash-decoding). Few rows: the warps share the keys of a page; many:
// the rows. Shared by the kernels that read lists so; knows no techniques.
#pragma once
#include "attend-join.cuh"
#include "finished-list.cuh"
#include "mma.cuh"

// Rows of the entries from `from` on, a warp at a time: lane i has that of the i-th. Those after them are under way before they
// are asked for: one found when it is needed would be waited for as long as a page is read.
struct RowsAhead { int now, next; };

__device__ __forceinline__ int laneRow(const Attention& attention, const FinishedList& list, int from) {
  return rowOf(attention.pageRows, pageAt(list, from + (int)threadIdx.x % WARP), attention.kvHead);
}

__device__ __forceinline__ RowsAhead findRows(const Attention& attention, const FinishedList& list, int from) {
  return RowsAhead{laneRow(attention, list, from), laneRow(attention, list, from + WARP)};
}

// Of entry from + i; i goes up by one from call to call.
__device__ __forceinline__ int takeRow(RowsAhead& rows, const Attention& attention, const FinishedList& list, int from, int i) {
  if (i % WARP == 0 && i > 0) {
    rows.now = rows.next;
    rows.next = laneRow(attention, list, from + i + WARP);
  }
  return __shfl_sync(FULL_WARP, rows.now, i % WARP);
}

// The whole page as it lies: the layout of 16-bit pages is swizzled in memory already.
__device__ __forceinline__ void copyPage(const Attention& attention, int pageRow, element* stage) {
  const uint32 to = sharedAddress(stage);
#ifdef KV_BYTES
  const int64 from = byteRowOffset(pageRow);
  for (int at = threadIdx.x * 16; at < PAGE_BYTES; at += THREADS * 16) {
    copyAhead(to + at, (const uint8*)attention.keys + from + at);
    copyAhead(to + PAGE_BYTES + at, (const uint8*)attention.values + from + at);
  }
#else
  const int64 from = rowOffset(pageRow);
#pragma unroll
  for (int i = 0; i < PAGE_ELEMENTS / 8 / THREADS; i++) {
    const int unit = i * THREADS + threadIdx.x;
    copyAhead(to + unit * 16, attention.keys + from + unit * 8);
    copyAhead(to + PAGE_ELEMENTS * 2 + unit * 16, attention.values + from + unit * 8);
  }
#endif
}

// Query rows of a warp as the fragments of its products; rows that are not there are zeros.
__device__ __forceinline__ void loadQueries(uint32 (&queries)[STEPS][4], const element* q, int rowStride, const Rows& rows, int tileRow) {
  const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int row = tileRow + g + 8 * i;
    const bool isThere = row < rows.numRows;
    const element* at = isThere ? q + (int64)(rows.stepRow + tokenOf(rows, row)) * rowStride + headOf(rows, row) * HEAD_DIM : q;
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int channel = step * 16 + half * 8 + 2 * t;
        queries[step][i + 2 * half] = isThere && channel < HEAD_DIM ? *(const uint32*)(at + channel) : 0;
      }
    }
  }
}

// scores[key / 8]: query . key for KEYS keys of the page from firstKey on.
template <int KEYS>
__device__ __forceinline__ void scoreKeys(float (&scores)[KEYS / 8][4], const uint32 (&queries)[STEPS][4], uint32 keyPage, int firstKey) {
  const int lane = threadIdx.x % WARP;
  const int ownKey = firstKey + lane % 8 + lane / 16 * 8, ownUnit = lane / 8 % 2;
#pragma unroll
  for (int tile = 0; tile < KEYS / 8; tile++) scores[tile][0] = scores[tile][1] = scores[tile][2] = scores[tile][3] = 0;
#pragma unroll
  for (int step = 0; step < STEPS; step++) {
#pragma unroll
    for (int keys = 0; keys < KEYS; keys += 16) {
      uint32 tiles[4];
      loadTiles(tiles, keyPage + unitOffset(ownKey + keys, step * 2 + ownUnit) * 2);
      multiplyTile(scores[keys / 8], queries[step], tiles[0], tiles[1]);
      multiplyTile(scores[keys / 8 + 1], queries[step], tiles[2], tiles[3]);
    }
  }
}

template <int KEYS>
__device__ __forceinline__ void hideKeys(float (&scores)[KEYS / 8][4], const Visible& page, int firstKey, const int (&tokens)[2], int start, int window) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int tile = 0; tile < KEYS / 8; tile++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (!isVisible(page, firstKey + tile * 8 + 2 * t + i % 2, tokens[i / 2], start, window)) scores[tile][i] = NEGATIVE_INFINITY;
    }
  }
}

// Online softmax (arXiv 1805.02867): scores become weights, what was summed before is scaled to the new maximum.
template <int KEYS>
__device__ __forceinline__ void weighKeys(float (&scores)[KEYS / 8][4], Mix& mix, float scale) {
#pragma unroll
  for (int i = 0; i < 2; i++) {
    float most = mix.most[i];
#pragma unroll
    for (int tile = 0; tile < KEYS / 8; tile++) most = fmaxf(most, fmaxf(scores[tile][2 * i], scores[tile][2 * i + 1]));
    most = fmaxf(most, __shfl_xor_sync(FULL_WARP, most, 1));
    most = fmaxf(most, __shfl_xor_sync(FULL_WARP, most, 2));
    // Nothing visible yet: any finite base gives weights of zero.
    const float base = most == NEGATIVE_INFINITY ? 0 : most * scale;
    const float shrink = exp2Fast(mix.most[i] * scale - base);
    mix.most[i] = most;
    mix.total[i] *= shrink;
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) { mix.sum[tile][2 * i] *= shrink; mix.sum[tile][2 * i + 1] *= shrink; }
#pragma unroll
    for (int tile = 0; tile < KEYS / 8; tile++) {
#pragma unroll
      for (int j = 2 * i; j < 2 * i + 2; j++) {
        scores[tile][j] = exp2Fast(scores[tile][j] * scale - base);
        mix.total[i] += scores[tile][j];
      }
    }
  }
}

template <int KEYS>
__device__ __forceinline__ void mixValues(Mix& mix, const float (&weights)[KEYS / 8][4], uint32 valuePage, int firstKey) {
  const int lane = threadIdx.x % WARP;
  const int ownKey = firstKey + lane % 16, ownUnit = lane / 16;
#pragma unroll
  for (int keys = 0; keys < KEYS; keys += 16) {
    const float (&low)[4] = weights[keys / 8];
    const float (&high)[4] = weights[keys / 8 + 1];
    const uint32 a[4] = {packElements(low[0], low[1]), packElements(low[2], low[3]), packElements(high[0], high[1]), packElements(high[2], high[3])};
#pragma unroll
    for (int unit = 0; unit < TILES; unit += 2) {
      uint32 tiles[4];
      loadTilesTransposed(tiles, valuePage + unitOffset(ownKey + keys, unit + ownUnit) * 2);
      multiplyTile(mix.sum[unit], a, tiles[0], tiles[1]);
      multiplyTile(mix.sum[unit + 1], a, tiles[2], tiles[3]);
    }
  }
}

// The first pages of entries from..end - 1 come to the stages.
__device__ __forceinline__ void beginPages(const Attention& attention, const RowsAhead& found, int from, int end, element* stages) {
#pragma unroll
  for (int i = 0; i < STAGES - 1; i++) {
    const int row = __shfl_sync(FULL_WARP, found.now, i);
    if (from + i < end) copyPage(attention, row, stages + i * STAGE_ELEMENTS);
    endCopies();
  }
}

// Reads entries from..end - 1 of the list, whose first pages are under way. WARPS_ON_ROWS warps have rows of their own; the others share the keys.
template <int WARPS_ON_ROWS>
__device__ __forceinline__ void readPages(Mix& mix, const uint32 (&queries)[STEPS][4], const Attention& attention, const FinishedList& list,
                                          const Rows& rows, RowsAhead found, int from, int end, element* stages) {
  const int KEYS = TILE_ROWS * WARPS_ON_ROWS;
  const int warp = threadIdx.x / WARP, g = threadIdx.x % WARP / 4;
  const int tileRow = warp % WARPS_ON_ROWS * TILE_ROWS, firstKey = warp / WARPS_ON_ROWS * KEYS;
  const int tokens[2] = {tokenOf(rows, tileRow + g), tokenOf(rows, tileRow + g + 8)};
  const float scale = attention.scale * LOG2_E;

  int ahead = STAGES - 1;
  int stage = 0, stageAhead = STAGES - 1;
  for (int entry = from; entry < end; entry++) {
    awaitCopies<STAGES - 2>();
    __syncthreads();
    const int row = takeRow(found, attention, list, from, ahead);
    if (from + ahead++ < end) copyPage(attention, row, stages + stageAhead * STAGE_ELEMENTS);
    endCopies();
    stageAhead = stageAhead + 1 == STAGES ? 0 : stageAhead + 1;

#ifdef KV_BYTES
    element* wide = stages + STAGES * STAGE_ELEMENTS;
    const uint8* bytes = (const uint8*)(stages + stage * STAGE_ELEMENTS);
    widenPage(bytes, wide, threadIdx.x, THREADS);
    widenPage(bytes + PAGE_BYTES, wide + PAGE_ELEMENTS, threadIdx.x, THREADS);
    __syncthreads();
    const uint32 keyPage = sharedAddress(wide);
#else
    const uint32 keyPage = sharedAddress(stages + stage * STAGE_ELEMENTS);
#endif
    stage = stage + 1 == STAGES ? 0 : stage + 1;
    float scores[KEYS / 8][4];
    scoreKeys<KEYS>(scores, queries, keyPage, firstKey);
    const Visible page = visibleAt(list, entry);
    if (hidesSome(page, tokenOf(rows, 0), attention.window)) hideKeys<KEYS>(scores, page, firstKey, tokens, list.start, attention.window);
    weighKeys<KEYS>(scores, mix, scale);
    mixValues<KEYS>(mix, scores, keyPage + PAGE_ELEMENTS * 2, firstKey);
  }
}

// The block's part of a list.
__device__ __forceinline__ int firstEntry(const FinishedList& list) { return (int)((int64)list.numEntries * blockIdx.x / gridDim.x); }
__device__ __forceinline__ int endEntry(const FinishedList& list) { return (int)((int64)list.numEntries * (blockIdx.x + 1) / gridDim.x); }

// Its first pages are under way.
template <int WARPS_ON_ROWS>
__device__ __forceinline__ void attendPart(const Attention& attention, const FinishedList& list, const Rows& rows, const RowsAhead& found, const element* q,
                                           int rowStride, element* out, float* parts, int* counter, element* stages) {
  const int splits = gridDim.x, from = firstEntry(list), end = endEntry(list);
  const float scale = attention.scale * LOG2_E;
  float* own = parts + (int64)blockIdx.x * UNIT_ROWS * PART_FLOATS;
  if (from < end) {
    Mix mix;
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) mix.sum[tile][0] = mix.sum[tile][1] = mix.sum[tile][2] = mix.sum[tile][3] = 0;
    mix.most[0] = mix.most[1] = NEGATIVE_INFINITY;
    mix.total[0] = mix.total[1] = 0;
    uint32 queries[STEPS][4];
    loadQueries(queries, q, rowStride, rows, threadIdx.x / WARP % WARPS_ON_ROWS * TILE_ROWS);
    readPages<WARPS_ON_ROWS>(mix, queries, attention, list, rows, found, from, end, stages);
    awaitCopies<0>();
    __syncthreads();
    shareMix(mix, (float*)stages);
    __syncthreads();
  }
  // Rows in tile r lie in warps r, r + WARPS_ON_ROWS, ..: those that shared the keys.
  for (int i = threadIdx.x; i < rows.numRows * (HEAD_PAD / 4); i += THREADS) {
    const int row = i / (HEAD_PAD / 4), channel = i % (HEAD_PAD / 4) * 4;
    float* part = own + row * PART_FLOATS;
    if (from >= end) {
      if (channel == 0) *(float2*)(part + HEAD_PAD) = make_float2(NEGATIVE_INFINITY, 0);
      continue;
    }
    const float* shared = (const float*)stages + row * PART_FLOATS;
    const Joined joined = joinWarps(shared, WARPS / WARPS_ON_ROWS, WARPS_ON_ROWS * TILE_ROWS * PART_FLOATS, channel, scale);
    if (splits == 1) {
      const float share = 1 / joined.total;
      storeRow(out, rows, row, channel, make_float4(joined.sum.x * share, joined.sum.y * share, joined.sum.z * share, joined.sum.w * share));
      continue;
    }
    *(float4*)(part + channel) = joined.sum;
    if (channel == 0) *(float2*)(part + HEAD_PAD) = make_float2(joined.most, joined.total);
  }
  if (splits > 1 && isLastPart(counter, splits)) joinParts(out, rows, parts, splits, scale, (float*)stages);
}
