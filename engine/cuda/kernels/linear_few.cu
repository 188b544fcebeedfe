// x W^T for a few rows of x (decode), as fast as W comes from memory. A block has 16 outputs; its warps share the input
// channels, the tensor cores multiply 16 rows of W with 8 rows of x. W is read once, past the first-level cache, and before the kernel
// ahead has ended. Weights in 16 bits, or fp8 (E4M3) with a scale for each output. Contract: CONTRACT.md.
#include "few-tile.cuh"

// Two batches in turn, with the rows of x that belong to them, where the registers allow it; else one batch at a time
// and more blocks on a multiprocessor. Measured: each is the faster one for its kind of weights.
#if INPUT_TILES == 1 && !defined(WEIGHT_FP8)
#define TWO_BATCHES
#define RESIDENT 2
#else
#define RESIDENT 3
#endif

// Rows of W and of x that a lane reads; null past the end.
struct Sources { const weight* low; const weight* high; const element* x[INPUT_TILES]; };

// A batch of blocks of channels: the lane's pieces of its two rows of W, and of x where they are read ahead too.
struct Batch {
  uint4 low[AHEAD], high[AHEAD];
#ifdef TWO_BATCHES
  eight x[AHEAD];
#endif
};

// Blocks first.. of the row, at most AHEAD.
__device__ __forceinline__ void loadWeights(Batch& batch, const Sources& from, int first, int count) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < AHEAD; i++) {
    if (i >= count) continue;
    batch.low[i] = loadStreaming(from.low + (first + i) * BLOCK + t * TAKE);
    batch.high[i] = loadStreaming(from.high + (first + i) * BLOCK + t * TAKE);
  }
}

__device__ __forceinline__ eight loadInput(const Sources& from, int tile, int channel) {
  return from.x[tile] == nullptr ? eight{{0, 0, 0, 0}} : *(const eight*)(from.x[tile] + channel);
}

__device__ __forceinline__ void loadInputs(Batch& batch, const Sources& from, int first, int count) {
#ifdef TWO_BATCHES
#pragma unroll
  for (int i = 0; i < AHEAD; i++) {
    if (i < count) batch.x[i] = loadInput(from, 0, (first + i) * BLOCK + threadIdx.x % 4 * TAKE);
  }
#endif
}

// Products of a batch with all rows of x.
__device__ __forceinline__ void multiplyBatch(float (&sums)[INPUT_TILES][4], const Batch& batch, const Sources& from, int first, int count) {
#pragma unroll
  for (int i = 0; i < AHEAD; i++) {
    if (i >= count) continue;
#pragma unroll
    for (int tile = 0; tile < INPUT_TILES; tile++) {
#pragma unroll
      for (int part = 0; part < TAKE / 8; part++) {
#ifdef TWO_BATCHES
        const eight x = batch.x[i];
#else
        const eight x = loadInput(from, tile, (first + i) * BLOCK + threadIdx.x % 4 * TAKE + part * 8);
#endif
#pragma unroll
        for (int step = 0; step < 2; step++) {
          uint32 a[4];
          unpackWeights(batch.low[i], part * 2 + step, a[0], a[2]);
          unpackWeights(batch.high[i], part * 2 + step, a[1], a[3]);
          multiplyTile(sums[tile], a, scaleInput(x.pair[2 * step]), scaleInput(x.pair[2 * step + 1]));
        }
      }
    }
  }
}

// All blocks of the warp; the first weights are under way before the kernel ahead has ended.
__device__ __forceinline__ void multiplyAll(float (&sums)[INPUT_TILES][4], const Sources& from, int numBlocks) {
  const int stride = WARPS * AHEAD;
  int first = threadIdx.x / WARP * AHEAD;
  Batch batch;
  loadWeights(batch, from, first, numBlocks - first);
  awaitInputs();
#ifdef TWO_BATCHES
  Batch next;
  loadInputs(batch, from, first, numBlocks - first);
  for (; first < numBlocks; first += 2 * stride) {
    loadWeights(next, from, first + stride, numBlocks - first - stride);
    loadInputs(next, from, first + stride, numBlocks - first - stride);
    multiplyBatch(sums, batch, from, first, numBlocks - first);
    loadWeights(batch, from, first + 2 * stride, numBlocks - first - 2 * stride);
    loadInputs(batch, from, first + 2 * stride, numBlocks - first - 2 * stride);
    multiplyBatch(sums, next, from, first + stride, numBlocks - first - stride);
  }
#else
  while (first < numBlocks) {
    multiplyBatch(sums, batch, from, first, numBlocks - first);
    first += stride;
    loadWeights(batch, from, first, numBlocks - first);
  }
#endif
}

// The products of a block: sums of 16 rows of W, of which 8 begin at lowRow and 8 at highRow, with `rows` rows of x.
// -> [WARPS, OUTPUTS, ROWS] in `shared`
__device__ __forceinline__ void multiplyRows(float* shared, const element* x, const weight* w, int lowRow, int highRow, int lastRow, int rows, int inputs) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, t = lane % 4;
  Sources from = {w + (int64)min(lowRow + g, lastRow) * inputs, w + (int64)min(highRow + g, lastRow) * inputs};
#pragma unroll
  for (int tile = 0; tile < INPUT_TILES; tile++) from.x[tile] = tile * 8 + g < rows ? x + (int64)(tile * 8 + g) * inputs : nullptr;
  float sums[INPUT_TILES][4];
#pragma unroll
  for (int tile = 0; tile < INPUT_TILES; tile++) sums[tile][0] = sums[tile][1] = sums[tile][2] = sums[tile][3] = 0;

  multiplyAll(sums, from, inputs / BLOCK);
  float* own = shared + warp * OUTPUTS * ROWS;
#pragma unroll
  for (int tile = 0; tile < INPUT_TILES; tile++) {
#pragma unroll
    for (int i = 0; i < 4; i++) own[(g + i / 2 * 8) * ROWS + tile * 8 + 2 * t + i % 2] = sums[tile][i];
  }
  __syncthreads();
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
linear_few(const element* x, const weight* w, const float* scales, element* out, float* logits, int rows, int inputs, int outputs, float scale) {
  __shared__ float shared[WARPS * OUTPUTS * ROWS];
  const int first = blockIdx.x * OUTPUTS;
  letNextBegin();
  multiplyRows(shared, x, w, first, first + 8, outputs - 1, rows, inputs);
  for (int i = threadIdx.x; i < OUTPUTS * ROWS; i += THREADS) {
    const int row = i / OUTPUTS, output = i % OUTPUTS;
    if (row >= rows || first + output >= outputs) continue;
    const float sum = sumOverWarps(shared, output, row) * (scales == nullptr ? scale : scale * scales[first + output]);
    const int64 at = (int64)row * outputs + first + output;
    if (logits != nullptr) logits[at] = sum;
    else out[at] = toElement(sum);
  }
}

// silu(x G^T) * (x U^T); W holds the rows of G, then those of U. The block's 16 rows of W are 8 of each.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
linear_few_gated(const element* x, const weight* w, const float* scales, element* out, int rows, int inputs, int inner, float scale, float factor) {
  __shared__ float shared[WARPS * OUTPUTS * ROWS];
  const int first = blockIdx.x * (OUTPUTS / 2);
  letNextBegin();
  multiplyRows(shared, x, w, first, inner + first, 2 * inner - 1, rows, inputs);
  for (int i = threadIdx.x; i < OUTPUTS / 2 * ROWS; i += THREADS) {
    const int row = i / (OUTPUTS / 2), output = i % (OUTPUTS / 2);
    if (row >= rows || first + output >= inner) continue;
    const float gate = sumOverWarps(shared, output, row) * (scales == nullptr ? scale : scale * scales[first + output]);
    const float up = sumOverWarps(shared, output + 8, row) * (scales == nullptr ? scale : scale * scales[inner + first + output]);
    out[(int64)row * inner + first + output] = toElement(gate / (1.0f + expf(-gate)) * up * factor);
  }
}
