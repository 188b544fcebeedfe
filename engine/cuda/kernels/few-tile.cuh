// A block's tile of a linear layer of few rows: 16 rows of W, whose input channels the warps share, with 8 or 16 rows of x.
// Knows no order in which tiles and batches come. Used by linear_few.cu and linear_stream.cu. Contract: CONTRACT.md.
#pragma once
#include "few-weights.cuh"

#define THREADS 256
#define WARPS (THREADS / WARP)
#define OUTPUTS 16
#ifndef INPUT_TILES
#define INPUT_TILES 1
#endif
#define ROWS (8 * INPUT_TILES)
// Channels of the four lanes that stand beside each other.
#define BLOCK (4 * TAKE)
// 16-byte accesses of a batch, for each of a lane's two rows.
#define AHEAD 4

// Of sums [WARPS, OUTPUTS, ROWS].
__device__ __forceinline__ float sumOverWarps(const float* shared, int output, int row) {
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < WARPS; warp++) sum += shared[(warp * OUTPUTS + output) * ROWS + row];
  return sum * OUTPUT_FACTOR;
}
