// Copies of pages whose keys are turned to another position (PagePlan.positionDelta): attention then reads them like
// any page. A block copies one page of one KV head of one layer. Knows no lists. Contract: CONTRACT.md.
#include "byte-page.cuh"

#define HALF (HEAD_DIM / 2)
#define THREADS 128

#ifdef KV_BYTES
// A warp turns a token; its scale is made anew.
__device__ __forceinline__ void turnKeys(const uint8* from, uint8* to, const float* turns) {
  const int ROUNDS = (HALF + WARP - 1) / WARP, lane = threadIdx.x % WARP;
  for (int token = threadIdx.x / WARP; token < PAGE_TOKENS; token += THREADS / WARP) {
    const float scale = ((const float*)(from + SCALES_AT))[token];
    float lows[ROUNDS], highs[ROUNDS], most = 0;
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) {
      const int pair = round * WARP + lane;
      lows[round] = highs[round] = 0;
      if (pair >= HALF) continue;
      const float low = toFloat(elementOf(from[byteOffset(token, pair)], scale)), high = toFloat(elementOf(from[byteOffset(token, pair + HALF)], scale));
      const float2 turn = *(const float2*)(turns + pair * 2);
      lows[round] = low * turn.x - high * turn.y;
      highs[round] = high * turn.x + low * turn.y;
      most = fmaxf(most, fmaxf(fabsf(lows[round]), fabsf(highs[round])));
    }
    for (int step = WARP / 2; step > 0; step /= 2) most = fmaxf(most, __shfl_xor_sync(FULL_WARP, most, step));
    const float turned = scaleOf(most);
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) {
      const int pair = round * WARP + lane;
      if (pair >= HALF) continue;
      to[byteOffset(token, pair)] = (uint8)byteOf(lows[round] / turned);
      to[byteOffset(token, pair + HALF)] = (uint8)byteOf(highs[round] / turned);
    }
    for (int channel = HEAD_DIM + lane; channel < HEAD_PAD; channel += WARP) to[byteOffset(token, channel)] = 0;
    if (lane == 0) ((float*)(to + SCALES_AT))[token] = turned;
  }
}
#endif

extern "C" __global__ void __launch_bounds__(THREADS)
turn_pages(element* keys, element* values, const int* pageRows, const int* moves, const float* ropeTable, int kvHeads) {
  const int4 move = *(const int4*)(moves + blockIdx.x * 4);
  if (move.y < 0) return awaitInputs();
  const PageRows rows = {pageRows + blockIdx.z * kvHeads, (int)gridDim.z * kvHeads};
  const int fromRow = rowOf(rows, move.x, blockIdx.y), toRow = rowOf(rows, move.y, blockIdx.y);
  letNextBegin();
  awaitInputs();
  const float* turns = ropeTable + (int64)move.z * HEAD_DIM;
#ifdef KV_BYTES
  const int64 from = byteRowOffset(fromRow), to = byteRowOffset(toRow);
  const uint8* fromValues = (const uint8*)values + from;
  uint8* toValues = (uint8*)values + to;
  for (int at = threadIdx.x * 16; at < PAGE_BYTES; at += THREADS * 16) *(uint4*)(toValues + at) = *(const uint4*)(fromValues + at);
  turnKeys((const uint8*)keys + from, (uint8*)keys + to, turns);
#else
  const int64 from = rowOffset(fromRow), to = rowOffset(toRow);
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
#endif
}
