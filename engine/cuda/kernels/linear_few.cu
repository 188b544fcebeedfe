// x W^T for a few rows of x (decode), as fast as W comes from memory. A block has 16 outputs; its warps share the input
// channels, the tensor cores multiply 16 rows of W with 8 rows of x. W is read once, past the first-level cache, and before the kernel
// ahead has ended. Weights in 16 bits, or fp8 (E4M3) with a scale for each output. Contract: CONTRACT.md.
#include "mma.cuh"

#define THREADS 256
#define WARPS (THREADS / WARP)
#define OUTPUTS 16
#ifndef RESIDENT
#define RESIDENT 2
#endif
#ifndef INPUT_TILES
#define INPUT_TILES 1
#endif
#define ROWS (8 * INPUT_TILES)

// Channels of W in one 16-byte access, and of the block of four lanes that stand beside each other.
#ifdef WEIGHT_FP8
typedef uint8 weight;
#define TAKE 16
#else
typedef element weight;
#define TAKE 8
#endif
#define BLOCK (4 * TAKE)
#define STEPS (TAKE / 4)
// 16-byte accesses that a lane has under way for each of its two rows.
#ifndef AHEAD
#define AHEAD 8
#endif

// fp8's exponent in the wider format's place is too small by this power of two. What x is multiplied by brings the sums
// back to where fp32 has its full precision; the rest is left for the end.
#ifdef WEIGHT_FP8
#ifdef ELEMENT_FP16
#define INPUT_FACTOR 1.0f
#define OUTPUT_FACTOR 256.0f
#else
#define INPUT_FACTOR 1152921504606846976.0f
#define OUTPUT_FACTOR 1152921504606846976.0f
#endif
#else
#define INPUT_FACTOR 1.0f
#define OUTPUT_FACTOR 1.0f
#endif

__device__ __forceinline__ uint4 loadStreaming(const void* from) {
  uint4 x;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "l"(from));
  return x;
}

// Four channels of a row of W as the two registers of a fragment.
__device__ __forceinline__ void unpackWeights(const uint4& from, int step, uint32& low, uint32& high) {
#ifdef WEIGHT_FP8
  const uint32 four = step == 0 ? from.x : step == 1 ? from.y : step == 2 ? from.z : from.w;
  const uint32 first = __byte_perm(four, 0, 0x1404), second = __byte_perm(four, 0, 0x3424);
#ifdef ELEMENT_FP16
  low = (first & 0x80008000u) | ((first & 0x7f007f00u) >> 1);
  high = (second & 0x80008000u) | ((second & 0x7f007f00u) >> 1);
#else
  low = (first & 0x80008000u) | ((first & 0x7f007f00u) >> 4);
  high = (second & 0x80008000u) | ((second & 0x7f007f00u) >> 4);
#endif
#else
  low = step == 0 ? from.x : from.z;
  high = step == 0 ? from.y : from.w;
#endif
}

__device__ __forceinline__ uint32 scaleInput(uint32 pair) {
#if defined(WEIGHT_FP8) && !defined(ELEMENT_FP16)
  return packElements(lowElement(pair) * INPUT_FACTOR, highElement(pair) * INPUT_FACTOR);
#else
  return pair;
#endif
}

// Rows of W and of x that a lane reads; null past the end.
struct Sources { const weight* low; const weight* high; const element* x[INPUT_TILES]; };

// Blocks of channels first.. of the warp, `count` of them at most AHEAD: products with all rows of x.
__device__ __forceinline__ void loadWeights(uint4 (&low)[AHEAD], uint4 (&high)[AHEAD], const Sources& from, int first, int count) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < AHEAD; i++) {
    if (i >= count) continue;
    low[i] = loadStreaming(from.low + (first + i) * BLOCK + t * TAKE);
    high[i] = loadStreaming(from.high + (first + i) * BLOCK + t * TAKE);
  }
}

__device__ __forceinline__ void multiplyBlocks(float (&sums)[INPUT_TILES][4], const uint4 (&low)[AHEAD], const uint4 (&high)[AHEAD],
                                               const Sources& from, int first, int count) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < AHEAD; i++) {
    if (i >= count) continue;
#pragma unroll
    for (int tile = 0; tile < INPUT_TILES; tile++) {
      uint32 x[2 * STEPS];
#pragma unroll
      for (int part = 0; part < STEPS / 2; part++) {
        eight channels = {{0, 0, 0, 0}};
        if (from.x[tile] != nullptr) channels = *(const eight*)(from.x[tile] + (first + i) * BLOCK + t * TAKE + part * 8);
#pragma unroll
        for (int j = 0; j < 4; j++) x[part * 4 + j] = scaleInput(channels.pair[j]);
      }
#pragma unroll
      for (int step = 0; step < STEPS; step++) {
        uint32 a[4];
        unpackWeights(low[i], step, a[0], a[2]);
        unpackWeights(high[i], step, a[1], a[3]);
        multiplyTile(sums[tile], a, x[2 * step], x[2 * step + 1]);
      }
    }
  }
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

  const int numBlocks = inputs / BLOCK;
  uint4 low[AHEAD], high[AHEAD];
  bool isReady = false;
  for (int first = warp * AHEAD; first < numBlocks || !isReady; first += WARPS * AHEAD) {
    const int count = min(AHEAD, numBlocks - first);
    loadWeights(low, high, from, first, count);
    if (!isReady) awaitInputs();
    isReady = true;
    multiplyBlocks(sums, low, high, from, first, count);
  }
  float* own = shared + warp * OUTPUTS * ROWS;
#pragma unroll
  for (int tile = 0; tile < INPUT_TILES; tile++) {
#pragma unroll
    for (int i = 0; i < 4; i++) own[(g + i / 2 * 8) * ROWS + tile * 8 + 2 * t + i % 2] = sums[tile][i];
  }
  __syncthreads();
}

__device__ __forceinline__ float sumOverWarps(const float* shared, int output, int row) {
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < WARPS; warp++) sum += shared[(warp * OUTPUTS + output) * ROWS + row];
  return sum * OUTPUT_FACTOR;
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
linear_few(const element* x, const weight* w, const float* scales, element* out, float* logits, int rows, int inputs, int outputs) {
  __shared__ float shared[WARPS * OUTPUTS * ROWS];
  const int first = blockIdx.x * OUTPUTS;
  letNextBegin();
  multiplyRows(shared, x, w, first, first + 8, outputs - 1, rows, inputs);
  for (int i = threadIdx.x; i < OUTPUTS * ROWS; i += THREADS) {
    const int row = i / OUTPUTS, output = i % OUTPUTS;
    if (row >= rows || first + output >= outputs) continue;
    const float sum = sumOverWarps(shared, output, row) * (scales == nullptr ? 1.0f : scales[first + output]);
    const int64 at = (int64)row * outputs + first + output;
    if (logits != nullptr) logits[at] = sum;
    else out[at] = toElement(sum);
  }
}

// silu(x G^T) * (x U^T); W holds the rows of G, then those of U. The block's 16 rows of W are 8 of each.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
linear_few_gated(const element* x, const weight* w, const float* scales, element* out, int rows, int inputs, int inner) {
  __shared__ float shared[WARPS * OUTPUTS * ROWS];
  const int first = blockIdx.x * (OUTPUTS / 2);
  letNextBegin();
  multiplyRows(shared, x, w, first, inner + first, 2 * inner - 1, rows, inputs);
  for (int i = threadIdx.x; i < OUTPUTS / 2 * ROWS; i += THREADS) {
    const int row = i / (OUTPUTS / 2), output = i % (OUTPUTS / 2);
    if (row >= rows || first + output >= inner) continue;
    const float gate = sumOverWarps(shared, output, row) * (scales == nullptr ? 1.0f : scales[first + output]);
    const float up = sumOverWarps(shared, output + 8, row) * (scales == nullptr ? 1.0f : scales[inner + first + output]);
    out[(int64)row * inner + first + output] = toElement(gate / (1.0f + expf(-gate)) * up);
  }
}
