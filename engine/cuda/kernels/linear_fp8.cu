// x W^T with fp8 weights (E4M3, a scale for each output) for 17 to 64 rows of x, by wgmma (sm_90a, fp16): W is read once,
// straight to registers, and widened there; rows of x come through shared memory, for all warps of a block. A block has 256
// rows of W and a part of the channels; the last block of a tile adds the parts up, in order. Contract: CONTRACT.md.
#define WEIGHT_FP8
#define FP8_CONVERT
#include "few-weights.cuh"
#include "hopper.cuh"

#define THREADS 512
#define WARPS (THREADS / WARP)
#define OUTPUTS (16 * WARPS)
#ifndef ROWS
#define ROWS 64
#endif
#define SUMS (ROWS / 2)
// Channels of the four lanes that stand beside each other: a tile of x has as many. Such blocks in a step.
#define BLOCK (4 * TAKE)
#define STEP_BLOCKS 4
#define STEP (STEP_BLOCKS * BLOCK)
#define STAGES 3
#define TILE_BYTES (ROWS * 128)
#define STAGE_BYTES (STEP_BLOCKS * TILE_BYTES)

struct Weights { uint4 low[STEP_BLOCKS], high[STEP_BLOCKS]; };

// What a lane reads: two rows of W, at its place in a block.
struct Sources { const weight* low; const weight* high; };

__device__ __forceinline__ void loadWeights(Weights& weights, const Sources& from, int step, int end, int numBlocks) {
#pragma unroll
  for (int i = 0; i < STEP_BLOCKS; i++) {
    const int block = step * STEP_BLOCKS + i;
    if (step >= end || block >= numBlocks) continue;
    weights.low[i] = loadStreaming(from.low + block * BLOCK);
    weights.high[i] = loadStreaming(from.high + block * BLOCK);
  }
}

// The channels of a step of all rows of x, two at a time to where the product has them: lane t of W's fragments holds 16
// channels that follow each other, of which four are those of a product of 16. Rows that are not there stay as they are.
__device__ __forceinline__ void stageInputs(uint32 stage, const element* x, int rows, int inputs, int step, int end) {
  if (step < end) {
    for (int i = threadIdx.x; i < rows * (STEP / 2); i += THREADS) {
      const int row = i / (STEP / 2), channel = i % (STEP / 2) * 2, at = channel % BLOCK;
      if (step * STEP + channel >= inputs) continue;
      const int unit = at % TAKE / 4 * 2 + at % 4 / 2;
      copyPairAhead(stage + channel / BLOCK * TILE_BYTES + row * 128 + (unit ^ (row & 7)) * 16 + at / TAKE * 4, x + (int64)row * inputs + step * STEP + channel);
    }
  }
  endCopies();
}

__device__ __forceinline__ void multiplyStep(float (&sums)[SUMS], const Weights& weights, uint32 stage, int step, int numBlocks) {
#pragma unroll
  for (int i = 0; i < STEP_BLOCKS; i++) {
    if (step * STEP_BLOCKS + i >= numBlocks) continue;
    uint32 a[4][4];
#pragma unroll
    for (int part = 0; part < 4; part++) {
      unpackWeights(weights.low[i], part, a[part][0], a[part][2]);
      unpackWeights(weights.high[i], part, a[part][1], a[part][3]);
    }
    beginProducts();
#pragma unroll
    for (int part = 0; part < 4; part++) multiplyWide<0>(sums, a[part], describeTile(stage + i * TILE_BYTES + part * 32, 16), true);
    endProducts();
    awaitProducts<0>();
  }
}

// The block's products over its part of the channels.
__device__ __forceinline__ void multiplyPart(float (&sums)[SUMS], const Sources& from, const element* x, int rows, int inputs) {
  extern __shared__ uint8 shared[];
  const uint32 stages = (sharedAddress(shared) + 1023) & ~1023u;
  const int numBlocks = inputs / BLOCK, numSteps = (numBlocks + STEP_BLOCKS - 1) / STEP_BLOCKS;
  const int first = (int)((int64)numSteps * blockIdx.y / gridDim.y), end = (int)((int64)numSteps * (blockIdx.y + 1) / gridDim.y);
  Weights one, other;
  loadWeights(one, from, first, end, numBlocks);
  loadWeights(other, from, first + 1, end, numBlocks);
  awaitInputs();
  stageInputs(stages, x, rows, inputs, first, end);
  stageInputs(stages + STAGE_BYTES, x, rows, inputs, first + 1, end);
#pragma unroll
  for (int i = 0; i < SUMS; i++) sums[i] = 0;
  // Two sets of registers in turn: weights that are under way cannot be moved.
  int stage = 0;
  for (int step = first; step < end; step += 2) {
#pragma unroll
    for (int turn = 0; turn < 2; turn++) {
      if (step + turn >= end) break;
      awaitCopies<1>();
      publishToProducts();
      __syncthreads();
      stageInputs(stages + (stage + 2) % STAGES * STAGE_BYTES, x, rows, inputs, step + turn + 2, end);
      Weights& weights = turn == 0 ? one : other;
      multiplyStep(sums, weights, stages + stage * STAGE_BYTES, step + turn, numBlocks);
      loadWeights(weights, from, step + turn + 2, end, numBlocks);
      stage = (stage + 1) % STAGES;
    }
  }
}

// Adds up the parts of the tile; false in all blocks but the last one to come here. partials: [tiles, parts, SUMS, THREADS]
__device__ __forceinline__ bool joinParts(float (&sums)[SUMS], float* partials, int* counters) {
  __shared__ int arrived;
  const int parts = gridDim.y;
  if (parts == 1) return true;
  float* tile = partials + (int64)blockIdx.x * parts * SUMS * THREADS + threadIdx.x;
#pragma unroll
  for (int i = 0; i < SUMS; i++) tile[(blockIdx.y * SUMS + i) * THREADS] = sums[i];
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    arrived = atomicAdd(counters + blockIdx.x, 1);
    if (arrived == parts - 1) counters[blockIdx.x] = 0;
  }
  __syncthreads();
  __threadfence();
  if (arrived != parts - 1) return false;
#pragma unroll
  for (int i = 0; i < SUMS; i++) sums[i] = 0;
  for (int part = 0; part < parts; part++) {
#pragma unroll
    for (int i = 0; i < SUMS; i++) sums[i] += tile[(part * SUMS + i) * THREADS];
  }
  return true;
}

// The row of x of a sum. Sums 0 and 1 of four are those of the lane's low row of W, 2 and 3 of the high one.
__device__ __forceinline__ int rowOf(int i) { return i / 4 * 8 + 2 * (threadIdx.x % 4) + i % 2; }

extern "C" __global__ void __launch_bounds__(THREADS, 1)
linear_fp8(const element* x, const weight* w, const float* scales, element* out, float* partials, int* counters, int rows, int inputs, int outputs, float scale) {
  const int low = blockIdx.x * OUTPUTS + threadIdx.x / WARP * 16 + threadIdx.x % WARP / 4, high = low + 8;
  const int place = threadIdx.x % 4 * TAKE;
  letNextBegin();
  float sums[SUMS];
  multiplyPart(sums, {w + (int64)min(low, outputs - 1) * inputs + place, w + (int64)min(high, outputs - 1) * inputs + place}, x, rows, inputs);
  if (!joinParts(sums, partials, counters)) return;
  const float ofLow = scale * scales[min(low, outputs - 1)], ofHigh = scale * scales[min(high, outputs - 1)];
#pragma unroll
  for (int i = 0; i < SUMS; i++) {
    const int output = i % 4 < 2 ? low : high;
    if (rowOf(i) < rows && output < outputs) out[(int64)rowOf(i) * outputs + output] = toElement(sums[i] * (i % 4 < 2 ? ofLow : ofHigh));
  }
}

// silu(x G^T) * (x U^T); W holds the rows of G, then those of U: a warp has 8 of each.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
linear_fp8_gated(const element* x, const weight* w, const float* scales, element* out, float* partials, int* counters, int rows, int inputs, int inner, float scale, float factor) {
  const int output = blockIdx.x * (OUTPUTS / 2) + threadIdx.x / WARP * 8 + threadIdx.x % WARP / 4, known = min(output, inner - 1);
  const weight* gates = w + (int64)known * inputs + threadIdx.x % 4 * TAKE;
  letNextBegin();
  float sums[SUMS];
  multiplyPart(sums, {gates, gates + (int64)inner * inputs}, x, rows, inputs);
  if (!joinParts(sums, partials, counters) || output >= inner) return;
  const float ofGate = scale * scales[known], ofUp = scale * scales[inner + known];
#pragma unroll
  for (int i = 0; i < SUMS; i += 4) {
#pragma unroll
    for (int j = i; j < i + 2; j++) {
      const float gate = sums[j] * ofGate, up = sums[j + 2] * ofUp;
      if (rowOf(j) < rows) out[(int64)rowOf(j) * inner + output] = toElement(gate / (1.0f + expf(-gate)) * up * factor);
    }
  }
}
