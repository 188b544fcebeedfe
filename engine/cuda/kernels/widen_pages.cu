// Pages of 8 bits to pages of 16 bits in a layer's array of their own, for attention that reads only those (Hopper's, in
// prefill), in rows of their own that it notes. A block widens one page of one KV head. Knows no lists. Contract: CONTRACT.md.
#include "byte-page.cuh"

#ifdef KV_BYTES
extern "C" __global__ void __launch_bounds__(128)
widen_pages(const uint8* keys, const uint8* values, const int* pageRows, int pageHeads, const int* pages, element* wideKeys, element* wideValues, int* wideRows, int kvHeads) {
  letNextBegin();
  awaitInputs();
  const int page = pages[blockIdx.x], kvHead = blockIdx.y, wideRow = blockIdx.x * kvHeads + kvHead;
  if (threadIdx.x == 0) wideRows[(int64)page * kvHeads + kvHead] = wideRow;
  const int64 from = byteRowOffset(rowOf(PageRows{pageRows, pageHeads}, page, kvHead)), to = rowOffset(wideRow);
  widenPage(keys + from, wideKeys + to, threadIdx.x, blockDim.x);
  widenPage(values + from, wideValues + to, threadIdx.x, blockDim.x);
}
#endif
