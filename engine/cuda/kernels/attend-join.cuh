// The sizes and shares of attention by blocks of 64 rows: what a warp has summed, and how warps and parts of a list are joined,
// in an order that does not depend on timing. Knows no pages. Included by attend-part.cuh.
#pragma once
#define THREADS 128
#include "byte-page.cuh"

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
  PageRows pageRows;
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
