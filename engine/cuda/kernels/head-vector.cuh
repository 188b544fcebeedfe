// Vectors of a head in registers, spread over a few lanes: head norm, RoPE, to a page of KV memory; statistics of a logical
// page. Blocks are of THREADS threads. Shared by the kernels that write pages; knows no lists.
#pragma once
#include "byte-page.cuh"

#define HALF (HEAD_DIM / 2)

// Lanes that share a vector, and the channels of a half that a lane takes at once: units of 16 bytes where the halves
// are a power of two of them, else channel by channel.
#if HEAD_DIM == 16 || HEAD_DIM == 32 || HEAD_DIM == 64 || HEAD_DIM == 128 || HEAD_DIM == 256
#define TAKE 8
#define LANES (HALF / TAKE)
#define ROUNDS 1
#else
#define TAKE 1
#define LANES WARP
#define ROUNDS ((HALF + WARP - 1) / WARP)
#endif
#define AT_ONCE (THREADS / LANES)

struct Vector { float low[ROUNDS][TAKE], high[ROUNDS][TAKE]; };

__device__ __forceinline__ int channelOf(int round, int lane) { return (round * LANES + lane) * TAKE; }

__device__ __forceinline__ void loadSome(const element* from, float* to) {
#if TAKE == 8
  unpackEight(*(const eight*)from, to);
#else
  to[0] = toFloat(from[0]);
#endif
}

__device__ __forceinline__ void storeSome(const float* from, element* to) {
#if TAKE == 8
  *(eight*)to = packEight(from);
#else
  to[0] = toElement(from[0]);
#endif
}

__device__ __forceinline__ Vector loadVector(const element* from, const element* bias, int lane) {
  Vector x;
#pragma unroll
  for (int round = 0; round < ROUNDS; round++) {
    const int channel = channelOf(round, lane);
#pragma unroll
    for (int i = 0; i < TAKE; i++) x.low[round][i] = x.high[round][i] = 0;
    if (channel >= HALF) continue;
    loadSome(from + channel, x.low[round]);
    loadSome(from + channel + HALF, x.high[round]);
    if (bias == nullptr) continue;
    float low[TAKE], high[TAKE];
    loadSome(bias + channel, low);
    loadSome(bias + channel + HALF, high);
#pragma unroll
    for (int i = 0; i < TAKE; i++) { x.low[round][i] += low[i]; x.high[round][i] += high[i]; }
  }
  return x;
}

// RMS norm over the head's channels; all lanes of the warp must come here.
__device__ __forceinline__ void normalizeVector(Vector& x, const element* weight, float eps, int lane) {
  float squares = 0;
#pragma unroll
  for (int round = 0; round < ROUNDS; round++)
#pragma unroll
    for (int i = 0; i < TAKE; i++) squares += x.low[round][i] * x.low[round][i] + x.high[round][i] * x.high[round][i];
  const float scale = 1.0f / sqrtf(sumOverLanes(squares, LANES) / HEAD_DIM + eps);
#pragma unroll
  for (int round = 0; round < ROUNDS; round++) {
    const int channel = channelOf(round, lane);
    if (channel >= HALF) continue;
    float low[TAKE], high[TAKE];
    loadSome(weight + channel, low);
    loadSome(weight + channel + HALF, high);
#pragma unroll
    for (int i = 0; i < TAKE; i++) { x.low[round][i] *= scale * low[i]; x.high[round][i] *= scale * high[i]; }
  }
}

// turns: [HALF, 2] of the token
__device__ __forceinline__ void turnVector(Vector& x, const float* turns, int lane) {
#pragma unroll
  for (int round = 0; round < ROUNDS; round++) {
    const int channel = channelOf(round, lane);
    if (channel >= HALF) continue;
#pragma unroll
    for (int i = 0; i < TAKE; i++) {
      const float2 turn = *(const float2*)(turns + (channel + i) * 2);
      const float low = x.low[round][i], high = x.high[round][i];
      x.low[round][i] = low * turn.x - high * turn.y;
      x.high[round][i] = high * turn.x + low * turn.y;
    }
  }
}

__device__ __forceinline__ void storeVector(const Vector& x, element* to, int lane) {
#pragma unroll
  for (int round = 0; round < ROUNDS; round++) {
    const int channel = channelOf(round, lane);
    if (channel >= HALF) continue;
    storeSome(x.low[round], to + channel);
    storeSome(x.high[round], to + channel + HALF);
  }
}

#ifdef KV_BYTES
typedef uint8 stored;

// Over the lanes that share the vector; all lanes of the warp must come here.
__device__ __forceinline__ float sizeOf(const Vector& x) {
  float most = 0;
#pragma unroll
  for (int round = 0; round < ROUNDS; round++)
#pragma unroll
    for (int i = 0; i < TAKE; i++) most = fmaxf(most, fmaxf(fabsf(x.low[round][i]), fabsf(x.high[round][i])));
  for (int step = LANES / 2; step > 0; step /= 2) most = fmaxf(most, __shfl_xor_sync(FULL_WARP, most, step));
  return most;
}

// The channels become what is read of them.
__device__ __forceinline__ void storeBytes(float* x, uint8* to, float scale) {
#if TAKE == 8
  uint2 bytes = make_uint2(0, 0);
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const uint32 byte = byteOf(x[i] / scale);
    if (i < 4) bytes.x |= byte << 8 * i; else bytes.y |= byte << 8 * (i - 4);
    x[i] = toFloat(elementOf(byte, scale));
  }
  *(uint2*)to = bytes;
#else
  const uint32 byte = byteOf(x[0] / scale);
  *to = (uint8)byte;
  x[0] = toFloat(elementOf(byte, scale));
#endif
}

__device__ __forceinline__ void storeToPage(Vector& x, uint8* page, int token, int lane, float scale) {
#pragma unroll
  for (int round = 0; round < ROUNDS; round++) {
    const int channel = channelOf(round, lane);
    if (channel >= HALF) continue;
    storeBytes(x.low[round], page + byteOffset(token, channel), scale);
    storeBytes(x.high[round], page + byteOffset(token, channel + HALF), scale);
  }
  for (int channel = HEAD_DIM + lane; channel < HEAD_PAD; channel += LANES) page[byteOffset(token, channel)] = 0;
  if (lane == 0) ((float*)(page + SCALES_AT))[token] = scale;
}

// Whatever their bytes are.
__device__ __forceinline__ void zeroTail(uint8* page, int from) {
  for (int token = from + threadIdx.x; token < PAGE_TOKENS; token += THREADS) ((float*)(page + SCALES_AT))[token] = 0;
}

__device__ __forceinline__ uint8* rowAt(element* memory, int row) { return (uint8*)memory + byteRowOffset(row); }

__device__ __forceinline__ element readPage(const uint8* page, int token, int channel) {
  return elementOf(page[byteOffset(token, channel)], ((const float*)(page + SCALES_AT))[token]);
}
#else
typedef element stored;

__device__ __forceinline__ float sizeOf(const Vector&) { return 0; }
__device__ __forceinline__ float scaleOf(float) { return 1; }

// To a token of a page; the channels that pad the head are zeros.
__device__ __forceinline__ void storeToPage(const Vector& x, element* page, int token, int lane, float) {
#pragma unroll
  for (int round = 0; round < ROUNDS; round++) {
    const int channel = channelOf(round, lane);
    if (channel >= HALF) continue;
    storeSome(x.low[round], page + channelOffset(token, channel));
    storeSome(x.high[round], page + channelOffset(token, channel + HALF));
  }
  for (int channel = HEAD_DIM + lane; channel < HEAD_PAD; channel += LANES) page[channelOffset(token, channel)] = toElement(0);
}

__device__ __forceinline__ void zeroTail(element* page, int from) {
  const eight zeros = {{0, 0, 0, 0}};
  for (int i = threadIdx.x; i < (PAGE_TOKENS - from) * (HEAD_PAD / 8); i += THREADS) {
    *(eight*)(page + unitOffset(from + i / (HEAD_PAD / 8), i % (HEAD_PAD / 8))) = zeros;
  }
}

__device__ __forceinline__ element* rowAt(element* memory, int row) { return memory + rowOffset(row); }

__device__ __forceinline__ element readPage(const element* page, int token, int channel) { return page[channelOffset(token, channel)]; }
#endif

// keys: those of the logical page up to `count`, as stored. [16, HEAD_DIM]
__device__ __forceinline__ void storeStatistics(const element* keys, int count, element* statistics) {
  for (int channel = threadIdx.x; channel < HEAD_DIM; channel += THREADS) {
    float least = toFloat(keys[channel]), most = least;
    for (int token = 1; token < count; token++) {
      const float value = toFloat(keys[token * HEAD_DIM + channel]);
      least = fminf(least, value);
      most = fmaxf(most, value);
    }
    statistics[channel] = toElement(least);
    statistics[HEAD_DIM + channel] = toElement(most);
  }
}
