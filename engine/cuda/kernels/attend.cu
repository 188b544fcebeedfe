// Attention over page lists for decode, verification and prefill, by mma (8.0 and later). Knows no techniques. Contract:
// CONTRACT.md.
#include "attend-part.cuh"

extern "C" __global__ void BOUNDS
attend(const element* q, int rowStride, element* out, const element* keys, const element* values, const int* pageRows, int pageHeads, const int* units,
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
  const Attention attention = {keys, values, {pageRows, pageHeads}, kvHead, kvHeads, window, scale};
  const int64 counter = (int64)unit * kvHeads + kvHead;
  float* parts = partials + counter * gridDim.x * UNIT_ROWS * PART_FLOATS;
  const RowsAhead found = findRows(attention, finished, firstEntry(finished));
  beginPages(attention, found, firstEntry(finished), endEntry(finished), stages);
  if (rows.numRows <= TILE_ROWS) attendPart<1>(attention, finished, rows, found, q, rowStride, out, parts, counters + counter, stages);
  else if (rows.numRows <= 2 * TILE_ROWS) attendPart<2>(attention, finished, rows, found, q, rowStride, out, parts, counters + counter, stages);
  else attendPart<4>(attention, finished, rows, found, q, rowStride, out, parts, counters + counter, stages);
}
