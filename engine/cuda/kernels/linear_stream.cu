// x W^T for a few rows of x (decode) by blocks that stay: each takes 16 outputs after 16 outputs, with the weights of the
// next two steps always under way, before the kernel ahead has ended as well. x lies in shared memory; it may be the
// residual, normed by each block for itself, and the result may be added to the residual: a layer then needs no kernel for
// its norms. Weights in 16 bits, or fp8 (E4M3) with a scale for each output. Contract: CONTRACT.md.
#include "few-tile.cuh"

#define RESIDENT 2
// Blocks of channels in the batches of all warps.
#define STEP (WARPS * AHEAD)
// Rows of x in shared memory begin in different banks, so that the lanes that read at once do not collide.
#ifdef WEIGHT_FP8
#define ROW_PAD 8
#else
#define ROW_PAD 32
#endif

struct Layer { const weight* w; int inputs, outputs, tiles, batches; };

// What a lane loads next: its two rows of W from here on, and the batches that are left of the tile.
struct Cursor { const weight* low; const weight* high; int tile, left, block; };

struct Batch { uint4 low[AHEAD], high[AHEAD]; };

// GATED: W holds the rows of G, then those of U; the tile's 16 rows are 8 of each.
template <bool GATED>
__device__ __forceinline__ void beginTile(Cursor& cursor, const Layer& layer) {
  const int warp = threadIdx.x / WARP, g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
  const int low = GATED ? cursor.tile * (OUTPUTS / 2) : cursor.tile * OUTPUTS;
  const int high = GATED ? layer.outputs / 2 + low : low + OUTPUTS / 2;
  cursor.left = layer.batches;
  cursor.block = warp * AHEAD;
  cursor.low = layer.w + (int64)min(low + g, layer.outputs - 1) * layer.inputs + t * TAKE;
  cursor.high = layer.w + (int64)min(high + g, layer.outputs - 1) * layer.inputs + t * TAKE;
}

template <bool GATED>
__device__ __forceinline__ void loadNext(Batch& batch, Cursor& cursor, const Layer& layer) {
  if (cursor.tile >= layer.tiles) return;
  const int count = layer.inputs / BLOCK - cursor.block;
#pragma unroll
  for (int i = 0; i < AHEAD; i++) {
    if (i >= count) continue;
    batch.low[i] = loadStreaming(cursor.low + (cursor.block + i) * BLOCK);
    batch.high[i] = loadStreaming(cursor.high + (cursor.block + i) * BLOCK);
  }
  cursor.block += STEP;
  if (--cursor.left > 0) return;
  cursor.tile += gridDim.x;
  beginTile<GATED>(cursor, layer);
}

// Products of a batch that begins at `block` with all rows of x. x: the lane's rows in shared memory; null past the end.
__device__ __forceinline__ void multiplyBatch(float (&sums)[INPUT_TILES][4], const Batch& batch, const element* const (&x)[INPUT_TILES], int block, int numBlocks) {
#pragma unroll
  for (int i = 0; i < AHEAD; i++) {
    if (block + i >= numBlocks) continue;
#pragma unroll
    for (int tile = 0; tile < INPUT_TILES; tile++) {
#pragma unroll
      for (int part = 0; part < TAKE / 8; part++) {
        const eight inputs = x[tile] == nullptr ? eight{{0, 0, 0, 0}} : *(const eight*)(x[tile] + (block + i) * BLOCK + part * 8);
#pragma unroll
        for (int step = 0; step < 2; step++) {
          uint32 a[4];
          unpackWeights(batch.low[i], part * 2 + step, a[0], a[2]);
          unpackWeights(batch.high[i], part * 2 + step, a[1], a[3]);
          multiplyTile(sums[tile], a, scaleInput(inputs.pair[2 * step]), scaleInput(inputs.pair[2 * step + 1]));
        }
      }
    }
  }
}

// One row of the residual, normed. [inputs]
__device__ __forceinline__ void normRow(const float* x, const element* norm, element* to, int inputs, float eps, float* scratch) {
  float squares = 0;
  for (int i = threadIdx.x * 8; i < inputs; i += THREADS * 8) {
    const float4 low = *(const float4*)(x + i), high = *(const float4*)(x + i + 4);
    squares += low.x * low.x + low.y * low.y + low.z * low.z + low.w * low.w
      + high.x * high.x + high.y * high.y + high.z * high.z + high.w * high.w;
  }
  const float scale = 1.0f / sqrtf(sumOverBlock(squares, scratch) / inputs + eps);
  for (int i = threadIdx.x * 8; i < inputs; i += THREADS * 8) {
    const float4 low = *(const float4*)(x + i), high = *(const float4*)(x + i + 4);
    float values[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    float weights[8];
    unpackEight(*(const eight*)(norm + i), weights);
#pragma unroll
    for (int j = 0; j < 8; j++) values[j] = values[j] * scale * weights[j];
    *(eight*)(to + i) = packEight(values);
  }
}

// Rows of x to shared memory, inputs + ROW_PAD apart. Of elements where there is no norm, else of the residual.
__device__ __forceinline__ void stageRows(element* to, const void* x, const element* norm, int rows, int inputs, float eps) {
  __shared__ float scratch[WARPS];
  for (int row = 0; row < rows; row++) {
    element* own = to + row * (inputs + ROW_PAD);
    if (norm != nullptr) {
      normRow((const float*)x + (int64)row * inputs, norm, own, inputs, eps, scratch);
      continue;
    }
    const element* from = (const element*)x + (int64)row * inputs;
    for (int i = threadIdx.x * 8; i < inputs; i += THREADS * 8) copyAhead(sharedAddress(own + i), from + i);
  }
  endCopies();
  awaitCopies<0>();
  __syncthreads();
}

__device__ __forceinline__ float scaleOf(const float* scales, int output, float scale) { return scales == nullptr ? scale : scale * scales[output]; }

// What becomes of the sums of a tile: `before` is called as the tile begins, `store` with the sums of all warps.
struct Linear {
  element* out; float* sums; const float* scales;
  int adds, rows, outputs;
  float scale;

  __device__ __forceinline__ int64 placeOf(int tile, int i) const {
    const int row = i / OUTPUTS, output = tile * OUTPUTS + i % OUTPUTS;
    return row < rows && output < outputs ? (int64)row * outputs + output : -1;
  }

  // What the thread's first sum is added to.
  __device__ __forceinline__ float before(int tile) const {
    const int64 at = threadIdx.x < OUTPUTS * ROWS ? placeOf(tile, threadIdx.x) : -1;
    return adds && at >= 0 ? sums[at] : 0;
  }

  __device__ __forceinline__ void store(const float* shared, int tile, float before) const {
    static_assert(OUTPUTS * ROWS <= THREADS, "a thread has one sum");
    const int64 at = threadIdx.x < OUTPUTS * ROWS ? placeOf(tile, threadIdx.x) : -1;
    if (at < 0) return;
    const int output = threadIdx.x % OUTPUTS;
    const float sum = sumOverWarps(shared, output, threadIdx.x / OUTPUTS) * scaleOf(scales, tile * OUTPUTS + output, scale);
    if (sums != nullptr) sums[at] = before + sum;
    else out[at] = toElement(sum);
  }
};

struct Gated {
  element* out; const float* scales;
  int rows, inner;
  float scale, factor;

  __device__ __forceinline__ float before(int) const { return 0; }

  __device__ __forceinline__ void store(const float* shared, int tile, float) const {
    const int row = threadIdx.x / (OUTPUTS / 2), output = threadIdx.x % (OUTPUTS / 2), at = tile * (OUTPUTS / 2) + output;
    if (row >= rows || at >= inner) return;
    const float gate = sumOverWarps(shared, output, row) * scaleOf(scales, at, scale);
    const float up = sumOverWarps(shared, output + OUTPUTS / 2, row) * scaleOf(scales, inner + at, scale);
    out[(int64)row * inner + at] = toElement(gate / (1.0f + expf(-gate)) * up * factor);
  }
};

template <bool GATED, typename Result>
__device__ __forceinline__ void multiplyTiles(const Layer& layer, const Result& result, const void* x, const element* norm, int rows, float eps) {
  extern __shared__ eight staged[];
  // In turn, so that a warp may go on to the next tile while the sums of this one are added up.
  __shared__ float shared[2][WARPS * OUTPUTS * ROWS];
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, t = lane % 4;
  Cursor cursor;
  cursor.tile = blockIdx.x;
  beginTile<GATED>(cursor, layer);
  Batch one, other;
  loadNext<GATED>(one, cursor, layer);
  loadNext<GATED>(other, cursor, layer);
  awaitInputs();
  stageRows((element*)staged, x, norm, rows, layer.inputs, eps);
  const element* own[INPUT_TILES];
#pragma unroll
  for (int i = 0; i < INPUT_TILES; i++) own[i] = i * 8 + g < rows ? (const element*)staged + (i * 8 + g) * (layer.inputs + ROW_PAD) + t * TAKE : nullptr;

  const int numBlocks = layer.inputs / BLOCK;
  float* at = shared[0];
  for (int tile = blockIdx.x; tile < layer.tiles; tile += gridDim.x) {
    if (tile + gridDim.x >= layer.tiles) letNextBegin();
    const float before = result.before(tile);
    float sums[INPUT_TILES][4];
#pragma unroll
    for (int i = 0; i < INPUT_TILES; i++) sums[i][0] = sums[i][1] = sums[i][2] = sums[i][3] = 0;
    for (int block = warp * AHEAD, left = layer.batches; left > 0; left -= 2, block += 2 * STEP) {
      multiplyBatch(sums, one, own, block, numBlocks);
      loadNext<GATED>(one, cursor, layer);
      multiplyBatch(sums, other, own, block + STEP, numBlocks);
      loadNext<GATED>(other, cursor, layer);
    }
#pragma unroll
    for (int i = 0; i < INPUT_TILES; i++) {
#pragma unroll
      for (int j = 0; j < 4; j++) at[(warp * OUTPUTS + g + j / 2 * 8) * ROWS + i * 8 + 2 * t + j % 2] = sums[i][j];
    }
    __syncthreads();
    result.store(at, tile, before);
    at = at == shared[0] ? shared[1] : shared[0];
  }
}

// Two batches in turn: their number is even, the last one may be empty.
__device__ __forceinline__ Layer layerOf(const weight* w, int inputs, int outputs, int tiles) {
  const int batches = (inputs / BLOCK + STEP - 1) / STEP;
  return {w, inputs, outputs, tiles, batches + batches % 2};
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
linear_stream(const void* x, const element* norm, const weight* w, const float* scales, element* out, float* sums, int adds, int rows, int inputs, int outputs, float scale, float eps) {
  const Linear result = {out, sums, scales, adds, rows, outputs, scale};
  multiplyTiles<false>(layerOf(w, inputs, outputs, (outputs + OUTPUTS - 1) / OUTPUTS), result, x, norm, rows, eps);
}

// silu(x G^T) * (x U^T)
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
linear_stream_gated(const void* x, const element* norm, const weight* w, const float* scales, element* out, int rows, int inputs, int inner, float scale, float factor, float eps) {
  const Gated result = {out, scales, rows, inner, scale, factor};
  multiplyTiles<true>(layerOf(w, inputs, 2 * inner, (inner + OUTPUTS / 2 - 1) / (OUTPUTS / 2)), result, x, norm, rows, eps);
}
