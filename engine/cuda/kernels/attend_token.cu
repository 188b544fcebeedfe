// Attention of one token that turns it and writes it to its page first: what `rope_write` and `attend` do one after the other,
// for decode over short lists, where a kernel more and its gap count. Pages are under way before the token's product is
// there. Contract: CONTRACT.md.
#include "attend-part.cuh"
#include "head-vector.cuh"

// Queries of the group to shared memory, turned; in the block that reads the chunk's own page the key and the value go there.
// qkv: the token's row. Vectors: key, value, queries.
__device__ __forceinline__ void turnToken(const element* qkv, const element* qNorm, const element* kNorm, float eps, const float* turns, const Attention& attention,
                                          int group, bool writes, int pageRow, int slot, element* statistics, element* queries, element* logical) {
  const int kvHead = attention.kvHead, kvHeads = attention.kvHeads, heads = kvHeads * group, before = slot % LOGICAL_TOKENS;
  stored* keyPage = rowAt((element*)attention.keys, pageRow);
  stored* valuePage = rowAt((element*)attention.values, pageRow);
  if (writes) {
    for (int i = threadIdx.x; i < before * HEAD_DIM; i += THREADS) logical[i] = readPage(keyPage, slot - before + i / HEAD_DIM, i % HEAD_DIM);
  }
  const int lane = threadIdx.x % LANES, numVectors = group + 2;
  for (int first = 0; first < numVectors; first += AT_ONCE) {
    const int index = first + threadIdx.x / LANES;
    const int part = index < numVectors ? index : 1;
    const int head = part == 0 ? heads + kvHead : part == 1 ? heads + kvHeads + kvHead : kvHead * group + part - 2;
    Vector x = loadVector(qkv + head * HEAD_DIM, nullptr, lane);
    if (kNorm != nullptr) {
      Vector normed = x;
      normalizeVector(normed, part == 0 ? kNorm : qNorm, eps, lane);
      if (part != 1) x = normed;
    }
    if (part != 1) turnVector(x, turns, lane);
    const float scale = scaleOf(sizeOf(x));
    if (index >= numVectors) continue;
    if (part >= 2) storeVector(x, queries + (part - 2) * HEAD_DIM, lane);
    else if (writes && part == 1) storeToPage(x, valuePage, slot, lane, scale);
    else if (writes) {
      storeToPage(x, keyPage, slot, lane, scale);
      storeVector(x, logical + before * HEAD_DIM, lane);
    }
  }
  if (writes && slot == 0) zeroTail(valuePage, 1);
  __syncthreads();
  if (writes) storeStatistics(logical, before + 1, statistics + statisticsOffset(pageRow) + slot / LOGICAL_TOKENS * 2 * HEAD_DIM);
}

// `rope_write` and `attend` at once, for chunks of one token in lists that no query head picks for itself.
extern "C" __global__ void BOUNDS
attend_token(const element* qkv, int rowStride, element* out, element* keys, element* values, const int* pageRows, int pageHeads, const int* units,
             const int* chunks, const int* lists, const int* entries, const int* entryPositions, const uint8* classOf,
             const int* selection, int maxPick, float* partials, int* counters, int layer, int layers, int kvHeads, int group,
             int window, float scale, const element* qNorm, const element* kNorm, float eps, const float* ropeTable, element* statistics) {
  extern __shared__ eight shared[];
  __shared__ alignas(16) element queries[TILE_ROWS * HEAD_DIM];
  __shared__ alignas(16) element logical[LOGICAL_TOKENS * HEAD_DIM];
  element* stages = (element*)shared;
  const int kvHead = blockIdx.y, unit = blockIdx.z, heads = kvHeads * group;
  const int index = units[unit * 4];
  if (index < 0) return awaitInputs();
  const Chunk chunk = readChunk(chunks, index);
  const List list = readList(lists, classOf, chunk, layer * kvHeads + kvHead);
  const Rows rows = {group, 0, group, kvHead * group, heads, chunk.firstRow};
  const int* picked = selection + (list.pick > 0 ? selectionOffset(chunk.pickSlot, layer, layers, kvHead * group, heads, maxPick) : 0);
  const FinishedList finished = finishList(chunk, list, entries, entryPositions, picked, 0);
  const Attention attention = {keys, values, {pageRows, pageHeads}, kvHead, kvHeads, window, scale};
  const int ownRow = rowOf(attention.pageRows, finished.own[0], kvHead);
  const int from = firstEntry(finished), end = endEntry(finished);
  // The last entry is the chunk's own page. All others are complete before the kernel ahead has ended.
  const bool writes = from < end && end == finished.numEntries, isFirst = writes && end - from < STAGES;
  const RowsAhead found = findRows(attention, finished, from);
  letNextBegin();
  if (!isFirst) beginPages(attention, found, from, end, stages);
  awaitInputs();
  turnToken(qkv + (int64)chunk.firstRow * rowStride, qNorm, kNorm, eps, ropeTable + (int64)chunk.firstRow * HEAD_DIM, attention, group, writes,
            ownRow, chunk.start % PAGE_TOKENS, statistics, queries, logical);
  if (isFirst) beginPages(attention, found, from, end, stages);
  const int64 counter = (int64)unit * kvHeads + kvHead;
  attendPart<1>(attention, finished, rows, found, queries - kvHead * group * HEAD_DIM, 0, out, partials + counter * gridDim.x * UNIT_ROWS * PART_FLOATS, counters + counter, stages);
}
