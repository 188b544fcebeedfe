// Pages of 8 bits to pages of 16 bits in a layer's array of their own, for attention that reads only those (Hopper's, in
// prefill). A block widens one page of one KV head. Knows no lists. Contract: CONTRACT.md.
#include "byte-page.cuh"

#ifdef KV_BYTES
extern "C" __global__ void __launch_bounds__(128)
widen_pages(const uint8* keys, const uint8* values, element* wideKeys, element* wideValues, const int* pages, int kvHeads) {
  letNextBegin();
  awaitInputs();
  const int page = pages[blockIdx.x];
  const int64 from = bytePageOffset(page, blockIdx.y, kvHeads), to = pageOffset(page, blockIdx.y, kvHeads);
  widenPage(keys + from, wideKeys + to, threadIdx.x, blockDim.x);
  widenPage(values + from, wideValues + to, threadIdx.x, blockDim.x);
}
#endif
