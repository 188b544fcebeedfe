// Copies of pages whose keys are turned to another position (PagePlan.positionDelta): attention then reads them like
// any page. A block copies one page of one KV head of one layer. Knows no lists. Contract: CONTRACT.md.
#include "page.cuh"

#define HALF (HEAD_DIM / 2)

extern "C" __global__ void __launch_bounds__(128)
turn_pages(element* keys, element* values, int64 layerStride, const int* moves, const float* ropeTable, int kvHeads) {
  const int4 move = *(const int4*)(moves + blockIdx.x * 4);
  if (move.y < 0) return awaitInputs();
  letNextBegin();
  awaitInputs();
  const int64 from = blockIdx.z * layerStride + pageOffset(move.x, blockIdx.y, kvHeads);
  const int64 to = blockIdx.z * layerStride + pageOffset(move.y, blockIdx.y, kvHeads);
  const float* turns = ropeTable + (int64)move.z * HEAD_DIM;
  for (int i = threadIdx.x; i < PAGE_ELEMENTS / 8; i += blockDim.x) ((eight*)(values + to))[i] = ((const eight*)(values + from))[i];
  for (int i = threadIdx.x; i < PAGE_TOKENS * HALF; i += blockDim.x) {
    const int token = i / HALF, pair = i % HALF;
    const int lowAt = channelOffset(token, pair), highAt = channelOffset(token, pair + HALF);
    const float low = toFloat(keys[from + lowAt]), high = toFloat(keys[from + highAt]);
    const float2 turn = *(const float2*)(turns + pair * 2);
    keys[to + lowAt] = toElement(low * turn.x - high * turn.y);
    keys[to + highAt] = toElement(high * turn.x + low * turn.y);
  }
#if HEAD_PAD > HEAD_DIM
  const int padding = HEAD_PAD - HEAD_DIM;
  for (int i = threadIdx.x; i < PAGE_TOKENS * padding; i += blockDim.x) {
    keys[to + channelOffset(i / padding, HEAD_DIM + i % padding)] = toElement(0);
  }
#endif
}
