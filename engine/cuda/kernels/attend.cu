// Attention over page lists by mma (8.0 and later), for decode, verification and prefill. A block takes 64 rows (tokens
// x query heads of one KV head) and a part of the list; parts are joined by the last block to finish (flash-decoding).
// Few rows: the warps share the keys of a page; many: the rows. Knows no techniques. Contract: CONTRACT.md.
#include "byte-page.cuh"
#include "finished-list.cuh"
#include "mma.cuh"

#define THREADS 128
#define WARPS (THREADS / WARP)
#define UNIT_ROWS 64
#define TILE_ROWS 16
// A stage holds the keys and the values of a page; pages of 8 bits are widened behind the stages, one at a time.
#ifdef KV_BYTES
#define STAGES 2
#define STAGE_ELEMENTS PAGE_BYTES
#else
#define STAGES (HEAD_PAD > 128 ? 2 : 3)
#define STAGE_ELEMENTS (2 * PAGE_ELEMENTS)
#endif
// Blocks that widen pages hide each other's work: three fit, if registers allow it.
#if defined(KV_BYTES) && HEAD_PAD <= 128
#define BOUNDS __launch_bounds__(THREADS, 3)
#else
#define BOUNDS __launch_bounds__(THREADS)
#endif
#define STEPS (HEAD_PAD / 16)
#define TILES (HEAD_PAD / 8)
#define PART_FLOATS (HEAD_PAD + 4)
// The shares of all parts must fit where the stages were.
#define MOST_SPLITS 192
#define LOG2_E 1.4426950408889634f

// The rows of a unit: row -> token of the chunk, and query head.
struct Rows { int numRows, firstRow, group, firstHead, heads, stepRow; };

struct Attention {
  const element* keys; const element* values;
  int kvHead, kvHeads, window;
  float scale;
};

// One warp's share: 16 rows of the unit, some keys of each page. Rows g and g + 8.
struct Mix { float sum[TILES][4]; float most[2], total[2]; };

__device__ __forceinline__ float exp2Fast(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

__device__ __forceinline__ int tokenOf(const Rows& rows, int row) { return (rows.firstRow + row) / rows.group; }
__device__ __forceinline__ int headOf(const Rows& rows, int row) { return rows.firstHead + (rows.firstRow + row) % rows.group; }

// The whole page as it lies: the layout of 16-bit pages is swizzled in memory already.
__device__ __forceinline__ void copyPage(const Attention& attention, int page, element* stage) {
  const uint32 to = sharedAddress(stage);
#ifdef KV_BYTES
  const int64 from = bytePageOffset(page, attention.kvHead, attention.kvHeads);
  for (int at = threadIdx.x * 16; at < PAGE_BYTES; at += THREADS * 16) {
    copyAhead(to + at, (const uint8*)attention.keys + from + at);
    copyAhead(to + PAGE_BYTES + at, (const uint8*)attention.values + from + at);
  }
#else
  const int64 from = pageOffset(page, attention.kvHead, attention.kvHeads);
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

// Reads entries from..end - 1 of the list. WARPS_ON_ROWS warps have rows of their own; the others share the keys.
template <int WARPS_ON_ROWS>
__device__ __forceinline__ void readPages(Mix& mix, const uint32 (&queries)[STEPS][4], const Attention& attention, const FinishedList& list,
                                          const Rows& rows, int from, int end, element* stages) {
  const int KEYS = TILE_ROWS * WARPS_ON_ROWS;
  const int warp = threadIdx.x / WARP, g = threadIdx.x % WARP / 4;
  const int tileRow = warp % WARPS_ON_ROWS * TILE_ROWS, firstKey = warp / WARPS_ON_ROWS * KEYS;
  const int tokens[2] = {tokenOf(rows, tileRow + g), tokenOf(rows, tileRow + g + 8)};
  const float scale = attention.scale * LOG2_E;

  int ahead = from, pageAhead = pageAt(list, from);
#pragma unroll
  for (int i = 0; i < STAGES - 1; i++) {
    if (ahead < end) copyPage(attention, pageAhead, stages + i * STAGE_ELEMENTS);
    endCopies();
    pageAhead = pageAt(list, ++ahead);
  }
  int stage = 0, stageAhead = STAGES - 1;
  for (int entry = from; entry < end; entry++) {
    awaitCopies<STAGES - 2>();
    __syncthreads();
    if (ahead < end) copyPage(attention, pageAhead, stages + stageAhead * STAGE_ELEMENTS);
    endCopies();
    pageAhead = pageAt(list, ++ahead);
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

// The mixes of all warps, in shared memory: [WARPS, 16 rows, PART_FLOATS] = sums, maximum, total.
__device__ __forceinline__ void shareMix(Mix& mix, float* shared) {
  const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
  float* own = shared + threadIdx.x / WARP * TILE_ROWS * PART_FLOATS;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    mix.total[i] += __shfl_xor_sync(FULL_WARP, mix.total[i], 1);
    mix.total[i] += __shfl_xor_sync(FULL_WARP, mix.total[i], 2);
    float* row = own + (g + 8 * i) * PART_FLOATS;
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) *(float2*)(row + tile * 8 + 2 * t) = make_float2(mix.sum[tile][2 * i], mix.sum[tile][2 * i + 1]);
    if (t == 0) *(float2*)(row + HEAD_PAD) = make_float2(mix.most[i], mix.total[i]);
  }
}

// Joins the `count` mixes of a row that warps left in shared memory, `stride` floats apart: four channels of the sum,
// maximum, total.
struct Joined { float4 sum; float most, total; };

__device__ __forceinline__ void addScaled(float4& sum, const float4& x, float weight) {
  sum.x += x.x * weight; sum.y += x.y * weight; sum.z += x.z * weight; sum.w += x.w * weight;
}

__device__ __forceinline__ Joined joinWarps(const float* row, int count, int stride, int channel, float scale) {
  Joined joined = {make_float4(0, 0, 0, 0), NEGATIVE_INFINITY, 0};
  for (int i = 0; i < count; i++) joined.most = fmaxf(joined.most, row[i * stride + HEAD_PAD]);
  for (int i = 0; i < count; i++) {
    const float2 ends = *(const float2*)(row + i * stride + HEAD_PAD);
    const float weight = ends.y == 0 ? 0 : exp2Fast((ends.x - joined.most) * scale);
    addScaled(joined.sum, *(const float4*)(row + i * stride + channel), weight);
    joined.total += ends.y * weight;
  }
  return joined;
}

__device__ __forceinline__ void storeRow(element* out, const Rows& rows, int row, int channel, const float4& mixed) {
  element* to = out + ((int64)(rows.stepRow + tokenOf(rows, row)) * rows.heads + headOf(rows, row)) * HEAD_DIM + channel;
  if (channel < HEAD_DIM) *(uint32*)to = packElements(mixed.x, mixed.y);
  if (channel + 2 < HEAD_DIM) *(uint32*)(to + 2) = packElements(mixed.z, mixed.w);
}

// The share that each part has in a row: [rows, splits], in shared memory. A warp for a row, a lane for a part.
__device__ __forceinline__ void shareOut(float* shares, const float* parts, int numRows, int splits, float scale) {
  const int lane = threadIdx.x % WARP;
  for (int row = threadIdx.x / WARP; row < numRows; row += WARPS) {
    float2 ends[MOST_SPLITS / WARP];
    float most = NEGATIVE_INFINITY, total = 0;
#pragma unroll
    for (int i = 0; i < MOST_SPLITS / WARP; i++) {
      const int part = i * WARP + lane;
      ends[i] = part < splits ? *(const float2*)(parts + ((int64)part * UNIT_ROWS + row) * PART_FLOATS + HEAD_PAD) : make_float2(NEGATIVE_INFINITY, 0);
      most = fmaxf(most, ends[i].x);
    }
    for (int step = WARP / 2; step > 0; step /= 2) most = fmaxf(most, __shfl_xor_sync(FULL_WARP, most, step));
#pragma unroll
    for (int i = 0; i < MOST_SPLITS / WARP; i++) {
      ends[i].x = ends[i].y == 0 ? 0 : exp2Fast((ends[i].x - most) * scale);
      total += ends[i].x * ends[i].y;
    }
    total = sumOverLanes(total, WARP);
#pragma unroll
    for (int i = 0; i < MOST_SPLITS / WARP; i++) {
      if (i * WARP + lane < splits) shares[row * splits + i * WARP + lane] = ends[i].x / total;
    }
  }
}

// Joins the parts of a unit's rows and stores them. The sums of an empty part were not written: its share is 0.
__device__ __forceinline__ void joinParts(element* out, const Rows& rows, const float* parts, int splits, float scale, float* shares) {
  shareOut(shares, parts, rows.numRows, splits, scale);
  __syncthreads();
  for (int i = threadIdx.x; i < rows.numRows * (HEAD_PAD / 4); i += THREADS) {
    const int row = i / (HEAD_PAD / 4), channel = i % (HEAD_PAD / 4) * 4;
    const float* part = parts + row * PART_FLOATS + channel;
    float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 8
    for (int split = 0; split < splits; split++) {
      const float share = shares[row * splits + split];
      float4 x = *(const float4*)(part + (int64)split * UNIT_ROWS * PART_FLOATS);
      if (share == 0) x = make_float4(0, 0, 0, 0);
      addScaled(sum, x, share);
    }
    storeRow(out, rows, row, channel, sum);
  }
}

// True in the block that is the last of its unit to come here; what the others wrote before is then visible.
__device__ __forceinline__ bool isLastPart(int* counter, int splits) {
  __shared__ int arrived;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    arrived = atomicAdd(counter, 1);
    if (arrived == splits - 1) *counter = 0;
  }
  __syncthreads();
  __threadfence();
  return arrived == splits - 1;
}

template <int WARPS_ON_ROWS>
__device__ __forceinline__ void attendPart(const Attention& attention, const FinishedList& list, const Rows& rows, const element* q, int rowStride,
                                           element* out, float* parts, int* counter, element* stages) {
  const int splits = gridDim.x;
  const int from = (int)((int64)list.numEntries * blockIdx.x / splits), end = (int)((int64)list.numEntries * (blockIdx.x + 1) / splits);
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
    readPages<WARPS_ON_ROWS>(mix, queries, attention, list, rows, from, end, stages);
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

extern "C" __global__ void BOUNDS
attend(const element* q, int rowStride, element* out, const element* keys, const element* values, const int* units,
       const int* chunks, const int* lists, const int* entries, const int* entryPositions, const uint8* classOf,
       const int* selection, int maxPick, float* partials, int* counters, int layer, int layers, int kvHeads, int group,
       int window, float scale) {
  extern __shared__ eight shared[];
  element* stages = (element*)shared;
  const int kvHead = blockIdx.y, unit = blockIdx.z, heads = kvHeads * group;
  const int4 at = *(const int4*)(units + unit * 4);
  if (at.x < 0) return awaitInputs();
  const Chunk chunk = readChunk(chunks, at.x);
  const List list = readList(lists, classOf, chunk, layer * kvHeads + kvHead);
  // Units of members exist where query heads pick for themselves; of a shared list the first takes all rows.
  const int member = list.perQueryHead ? at.z : 0;
  if (!list.perQueryHead && at.z > 0) return awaitInputs();
  const int rowGroup = list.perQueryHead ? 1 : group;
  const int firstRow = at.y * UNIT_ROWS;
  const Rows rows = {min(UNIT_ROWS, chunk.tokens * rowGroup - firstRow), firstRow, rowGroup, kvHead * group + member, heads, chunk.firstRow};
  if (rows.numRows <= 0) return awaitInputs();
  const int* picked = selection + (list.pick > 0 ? selectionOffset(chunk.pickSlot, layer, layers, kvHead * group + member, heads, maxPick) : 0);
  const FinishedList finished = finishList(chunk, list, entries, entryPositions, picked, tokenOf(rows, rows.numRows - 1));
  letNextBegin();
  awaitInputs();
  const Attention attention = {keys, values, kvHead, kvHeads, window, scale};
  const int64 counter = (int64)unit * kvHeads + kvHead;
  float* parts = partials + counter * gridDim.x * UNIT_ROWS * PART_FLOATS;
  if (rows.numRows <= TILE_ROWS) attendPart<1>(attention, finished, rows, q, rowStride, out, parts, counters + counter, stages);
  else if (rows.numRows <= 2 * TILE_ROWS) attendPart<2>(attention, finished, rows, q, rowStride, out, parts, counters + counter, stages);
  else attendPart<4>(attention, finished, rows, q, rowStride, out, parts, counters + counter, stages);
}
