// The ops around the matrix products: embedding rows, RMS norm (arXiv 1910.07467), SiLU gate. One block for each
// row; memory-bound, so each number is read once. Knows no pages. Contract: CONTRACT.md.
#include "common.cuh"

#define THREADS 256
#define SILU_SPAN 2048

extern "C" __global__ void __launch_bounds__(THREADS)
embed(const element* table, const int* tokens, float* out, int hidden, float scale) {
  letNextBegin();
  awaitInputs();
  const int token = tokens[blockIdx.x];
  float* to = out + (int64)blockIdx.x * hidden;
  if (token < 0) {
    for (int i = threadIdx.x; i < hidden; i += THREADS) to[i] = 0;
    return;
  }
  const element* from = table + (int64)token * hidden;
  for (int i = threadIdx.x; i < hidden; i += THREADS) to[i] = toFloat(from[i]) * scale;
}

// Eight channels at a time where rows are whole units of 16 bytes, else one at a time.
__device__ __forceinline__ void normalizeRow(const float* x, const element* weight, element* out, int hidden, float scale) {
  if (hidden % 8 == 0) {
    for (int i = threadIdx.x * 8; i < hidden; i += THREADS * 8) {
      const float4 low = *(const float4*)(x + i);
      const float4 high = *(const float4*)(x + i + 4);
      float values[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
      float weights[8];
      unpackEight(*(const eight*)(weight + i), weights);
#pragma unroll
      for (int j = 0; j < 8; j++) values[j] = values[j] * scale * weights[j];
      *(eight*)(out + i) = packEight(values);
    }
  } else {
    for (int i = threadIdx.x; i < hidden; i += THREADS) out[i] = toElement(x[i] * scale * toFloat(weight[i]));
  }
}

// Each thread normalises the channels whose squares it summed: what it wrote or read comes back from its own cache line.
extern "C" __global__ void __launch_bounds__(THREADS)
rms_norm(const float* x, const element* weight, element* out, int hidden, float eps) {
  __shared__ float scratch[THREADS / WARP];
  letNextBegin();
  awaitInputs();
  const float* from = x + (int64)blockIdx.x * hidden;
  float squares = 0;
  if (hidden % 8 == 0) {
    for (int i = threadIdx.x * 8; i < hidden; i += THREADS * 8) {
      const float4 low = *(const float4*)(from + i);
      const float4 high = *(const float4*)(from + i + 4);
      squares += low.x * low.x + low.y * low.y + low.z * low.z + low.w * low.w
        + high.x * high.x + high.y * high.y + high.z * high.z + high.w * high.w;
    }
  } else {
    for (int i = threadIdx.x; i < hidden; i += THREADS) squares += from[i] * from[i];
  }
  const float scale = 1.0f / sqrtf(sumOverBlock(squares, scratch) / hidden + eps);
  normalizeRow(from, weight, out + (int64)blockIdx.x * hidden, hidden, scale);
}

// The sum stays in registers between the two passes for rows up to NORM_KEPT * THREADS * 8 channels.
#define NORM_KEPT 4

extern "C" __global__ void __launch_bounds__(THREADS)
add_norm(float* x, const element* delta, const element* weight, element* out, const int* rowIds, int hidden, float eps, float deltaScale) {
  __shared__ float scratch[THREADS / WARP];
  const int row = rowIds == nullptr ? (int)blockIdx.x : rowIds[blockIdx.x];
  letNextBegin();
  awaitInputs();
  element* to = out + (int64)blockIdx.x * hidden;
  if (row < 0) {
    for (int i = threadIdx.x; i < hidden; i += THREADS) to[i] = toElement(0);
    return;
  }
  float* sum = x + (int64)row * hidden;
  const element* added = delta + (int64)row * hidden;
  const bool storesSum = rowIds == nullptr;
  float squares = 0;
  if (hidden % 8 == 0 && hidden <= NORM_KEPT * THREADS * 8) {
    float kept[NORM_KEPT][8];
#pragma unroll
    for (int step = 0; step < NORM_KEPT; step++) {
      const int i = (step * THREADS + threadIdx.x) * 8;
      if (i >= hidden) continue;
      const float4 low = *(const float4*)(sum + i);
      const float4 high = *(const float4*)(sum + i + 4);
      unpackEight(*(const eight*)(added + i), kept[step]);
      const float before[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
      for (int j = 0; j < 8; j++) kept[step][j] = before[j] + kept[step][j] * deltaScale;
      if (storesSum) {
        *(float4*)(sum + i) = make_float4(kept[step][0], kept[step][1], kept[step][2], kept[step][3]);
        *(float4*)(sum + i + 4) = make_float4(kept[step][4], kept[step][5], kept[step][6], kept[step][7]);
      }
#pragma unroll
      for (int j = 0; j < 8; j++) squares += kept[step][j] * kept[step][j];
    }
    const float scale = 1.0f / sqrtf(sumOverBlock(squares, scratch) / hidden + eps);
#pragma unroll
    for (int step = 0; step < NORM_KEPT; step++) {
      const int i = (step * THREADS + threadIdx.x) * 8;
      if (i >= hidden) continue;
      float weights[8];
      unpackEight(*(const eight*)(weight + i), weights);
#pragma unroll
      for (int j = 0; j < 8; j++) weights[j] *= kept[step][j] * scale;
      *(eight*)(to + i) = packEight(weights);
    }
    return;
  }
  for (int i = threadIdx.x; i < hidden; i += THREADS) {
    const float value = sum[i] + toFloat(added[i]) * deltaScale;
    if (storesSum) sum[i] = value;
    squares += value * value;
  }
  const float scale = 1.0f / sqrtf(sumOverBlock(squares, scratch) / hidden + eps);
  for (int i = threadIdx.x; i < hidden; i += THREADS) {
    const float value = storesSum ? sum[i] : sum[i] + toFloat(added[i]) * deltaScale;
    to[i] = toElement(value * scale * toFloat(weight[i]));
  }
}

// exp(-x) overflows to infinity for very negative x, and x / infinity is -0: the limit.
__device__ __forceinline__ float gated(float gate, float up) { return gate / (1.0f + expf(-gate)) * up; }

extern "C" __global__ void __launch_bounds__(THREADS)
silu_mul(const element* gateUp, element* out, int inner, float factor) {
  letNextBegin();
  awaitInputs();
  const element* gate = gateUp + (int64)blockIdx.x * 2 * inner;
  const element* up = gate + inner;
  element* to = out + (int64)blockIdx.x * inner;
  const int from = blockIdx.y * SILU_SPAN;
  const int end = min(from + SILU_SPAN, inner);
  if (inner % 8 == 0) {
    const int i = from + threadIdx.x * 8;
    if (i >= end) return;
    float gates[8], ups[8];
    unpackEight(*(const eight*)(gate + i), gates);
    unpackEight(*(const eight*)(up + i), ups);
#pragma unroll
    for (int j = 0; j < 8; j++) gates[j] = gated(gates[j], ups[j]) * factor;
    *(eight*)(to + i) = packEight(gates);
  } else {
    for (int i = from + threadIdx.x; i < end; i += THREADS) to[i] = toElement(gated(toFloat(gate[i]), toFloat(up[i])) * factor);
  }
}
