// The head of each row of logits (engine/logit-row.ts): the largest logits in order and what the others add up to, so that
// rows of a large vocabulary need not go to the host. head_parts takes a row in parts, one block for each; join_heads joins
// the parts of a row. Neither depends on what else is in the launch. Knows no settings but a temperature. Contract:
// CONTRACT.md.
#include "common.cuh"

#define HEAD 256
#define THREADS 256
#define PER_THREAD 32
#define PART (THREADS * PER_THREAD)
#define JOIN_THREADS 1024
// So many parts fit: rows of 524,288 logits.
#define MOST_PARTS 64
#define JOIN_PER_THREAD (MOST_PARTS * HEAD / JOIN_THREADS)
#define RECORD (2 * HEAD + 4)

// Greater keys for greater logits, all above 0. Both zeros are one. What is no number lies beyond both ends.
#define KEY_OF_INFINITY 0xff800000u
#define KEY_OF_NEGATIVE_INFINITY 0x007fffffu
__device__ __forceinline__ uint32 keyOf(float logit) {
  const uint32 bits = __float_as_uint(__fadd_rn(logit, 0.0f));
  return max(bits & 0x80000000u ? ~bits : bits | 0x80000000u, 1u);
}

__device__ __forceinline__ float logitOf(uint32 key) { return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key); }

// Of equal logits the lower token is the greater.
__device__ __forceinline__ uint64 rankOf(uint32 key, int token) { return (uint64)key << 32 | (0xffffffffu - (uint32)token); }
__device__ __forceinline__ int tokenOf(uint64 rank) { return (int)(0xffffffffu - (uint32)rank); }

// Sum over the block, in every thread. Called again and again: `turn` alternates between two halves of `scratch`.
template <int Threads> __device__ __forceinline__ int countOverBlock(int own, int* scratch, int turn) {
  int* counts = scratch + (turn & 1) * (Threads / WARP);
  own = __reduce_add_sync(FULL_WARP, own);
  if (threadIdx.x % WARP == 0) counts[threadIdx.x / WARP] = own;
  __syncthreads();
  int total = 0;
#pragma unroll
  for (int warp = 0; warp < Threads / WARP; warp++) total += counts[warp];
  return total;
}

// The greatest key that `wanted` or more of the block's keys reach, `found` of them; it ends early where it has just
// `wanted`. More than `wanted` keys are above 0. `count` says how many of the thread's keys reach one.
template <int Threads, typename Key, typename Count>
__device__ __forceinline__ Key thresholdOf(int topBit, int wanted, Count count, int* scratch, int& found) {
  Key threshold = 0;
  found = 0;
  for (int bit = topBit; bit >= 0 && found != wanted; bit--) {
    const Key higher = threshold | (Key)1 << bit;
    const int reached = countOverBlock<Threads>(count(higher), scratch, bit);
    if (reached < wanted) continue;
    threshold = higher;
    found = reached;
  }
  __syncthreads();
  return threshold;
}

// How many the threads before this one have; in order, so that what is written does not depend on timing.
__device__ __forceinline__ int countBefore(int own, int* scratch) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  int sum = own;
#pragma unroll
  for (int step = 1; step < WARP; step *= 2) {
    const int other = __shfl_up_sync(FULL_WARP, sum, step);
    if (lane >= step) sum += other;
  }
  if (lane == WARP - 1) scratch[warp] = sum;
  __syncthreads();
  for (int i = 0; i < warp; i++) sum += scratch[i];
  return sum - own;
}

__device__ __forceinline__ uint32 greatestOfBlock(uint32 key, int* scratch) {
  key = __reduce_max_sync(FULL_WARP, key);
  if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = (int)key;
  __syncthreads();
  key = 0;
  for (int warp = 0; warp < THREADS / WARP; warp++) key = max(key, (uint32)scratch[warp]);
  __syncthreads();
  return key;
}

extern "C" __global__ void __launch_bounds__(THREADS, 4)
head_parts(const float* logits, int rowStride, int vocab, const float* inverseTemperatures, int* partTokens, float* partLogits, float* partSums) {
  __shared__ int counts[2 * THREADS / WARP];
  __shared__ float sums[THREADS / WARP];
  letNextBegin();
  awaitInputs();
  const int first = blockIdx.x * PART + threadIdx.x;
  const int64 part = (int64)blockIdx.y * gridDim.x + blockIdx.x;
  const float* row = logits + (int64)blockIdx.y * rowStride;
  const int present = min(PART, vocab - (int)blockIdx.x * PART);
  // 0 past the row: nothing reaches that.
  uint32 keys[PER_THREAD];
#pragma unroll
  for (int i = 0; i < PER_THREAD; i++) keys[i] = (int)threadIdx.x + i * THREADS < present ? keyOf(row[first + i * THREADS]) : 0;
  uint32 greatest = 0;
  int isRubbish = 0;
#pragma unroll
  for (int i = 0; i < PER_THREAD; i++) {
    greatest = max(greatest, keys[i]);
    isRubbish |= keys[i] >= KEY_OF_INFINITY || (keys[i] > 0 && keys[i] < KEY_OF_NEGATIVE_INFINITY);
  }
  isRubbish = __syncthreads_or(isRubbish);
  const float most = logitOf(greatestOfBlock(greatest, counts));

  uint32 threshold = 1;
  int found = present;
  // Of keys equal to the threshold those at the first places are taken: a lower place has a greater mark.
  int leastMark = 0;
  auto markAt = [&](int i) -> int { return PART - (threadIdx.x + i * THREADS); };
  if (present > HEAD) {
    threshold = thresholdOf<THREADS, uint32>(31, HEAD, [&](uint32 key) {
      int count = 0;
#pragma unroll
      for (int i = 0; i < PER_THREAD; i++) count += keys[i] >= key;
      return count;
    }, counts, found);
    if (found > HEAD) {
      int above = 0;
#pragma unroll
      for (int i = 0; i < PER_THREAD; i++) above += keys[i] > threshold;
      above = countOverBlock<THREADS>(above, counts, 0);
      __syncthreads();
      leastMark = thresholdOf<THREADS, int>(13, HEAD - above, [&](int mark) {
        int count = 0;
#pragma unroll
        for (int i = 0; i < PER_THREAD; i++) count += keys[i] == threshold && markAt(i) >= mark;
        return count;
      }, counts, found);
    }
  }
  const float inverse = inverseTemperatures[blockIdx.y];
  auto isTaken = [&](int i) -> bool { return keys[i] > threshold || (keys[i] == threshold && markAt(i) >= leastMark); };
  int own = 0;
  float rest = 0, restAtTemperature = 0;
#pragma unroll
  for (int i = 0; i < PER_THREAD; i++) {
    if (isTaken(i)) {
      own++;
    } else if (keys[i] > KEY_OF_NEGATIVE_INFINITY) {
      const float below = logitOf(keys[i]) - most;
      rest += expf(below);
      restAtTemperature += expf(below * inverse);
    }
  }
  int at = countBefore(own, counts);
  int* tokens = partTokens + part * HEAD;
  float* largest = partLogits + part * HEAD;
#pragma unroll
  for (int i = 0; i < PER_THREAD; i++) {
    if (!isTaken(i)) continue;
    tokens[at] = first + i * THREADS;
    largest[at++] = logitOf(keys[i]);
  }
  for (int i = min(present, HEAD) + threadIdx.x; i < HEAD; i += THREADS) tokens[i] = -1;
  rest = sumOverBlock(rest, sums);
  restAtTemperature = sumOverBlock(restAtTemperature, sums);
  if (threadIdx.x > 0) return;
  float* summary = partSums + part * 4;
  summary[0] = most;
  summary[1] = rest;
  summary[2] = restAtTemperature;
  summary[3] = isRubbish ? 0 : 1;
}

extern "C" __global__ void __launch_bounds__(JOIN_THREADS)
join_heads(const int* partTokens, const float* partLogits, const float* partSums, const float* inverseTemperatures, int parts, const float* logits, int rowStride,
           const int* targets, int* heads) {
  __shared__ int counts[2 * JOIN_THREADS / WARP];
  __shared__ float sums[JOIN_THREADS / WARP];
  __shared__ uint64 head[HEAD];
  letNextBegin();
  awaitInputs();
  const int64 firstPart = (int64)blockIdx.x * parts;
  uint64 ranks[JOIN_PER_THREAD];
  int present = 0;
#pragma unroll
  for (int i = 0; i < JOIN_PER_THREAD; i++) {
    const int place = threadIdx.x + i * JOIN_THREADS;
    const int token = place < parts * HEAD ? partTokens[firstPart * HEAD + place] : -1;
    ranks[i] = token < 0 ? 0 : rankOf(keyOf(partLogits[firstPart * HEAD + place]), token);
    present += ranks[i] > 0;
  }
  present = countOverBlock<JOIN_THREADS>(present, counts, 0);
  __syncthreads();
  uint64 threshold = 1;
  int found = present;
  if (present > HEAD) {
    threshold = thresholdOf<JOIN_THREADS, uint64>(63, HEAD, [&](uint64 rank) {
      int count = 0;
#pragma unroll
      for (int i = 0; i < JOIN_PER_THREAD; i++) count += ranks[i] >= rank;
      return count;
    }, counts, found);
  }
  int own = 0;
#pragma unroll
  for (int i = 0; i < JOIN_PER_THREAD; i++) own += ranks[i] >= threshold;
  int at = countBefore(own, counts);
#pragma unroll
  for (int i = 0; i < JOIN_PER_THREAD; i++) if (ranks[i] >= threshold) head[at++] = ranks[i];
  if (threadIdx.x < HEAD && (int)threadIdx.x >= found) head[threadIdx.x] = 0;
  __syncthreads();

  // Four threads count how many of the head are greater than one of it: that is its place.
  int* record = heads + (int64)blockIdx.x * RECORD;
  const int entry = threadIdx.x / 4;
  const uint64 rank = head[entry];
  int place = 0;
  uint64 greatest = 0;
  for (int i = 0; i < HEAD / 4; i++) {
    const uint64 other = head[i * 4 + threadIdx.x % 4];
    // Those of absent tokens are all 0, and keep their order.
    place += other > rank || (rank == 0 && other == 0 && i * 4 + (int)(threadIdx.x % 4) < entry);
    greatest = other > greatest ? other : greatest;
  }
  for (int step = 1; step < 4; step *= 2) {
    place += __shfl_xor_sync(FULL_WARP, place, step);
    const uint64 other = __shfl_xor_sync(FULL_WARP, greatest, step);
    greatest = other > greatest ? other : greatest;
  }
  const float most = logitOf((uint32)(greatest >> 32));
  if (threadIdx.x % 4 == 0) {
    record[place] = rank == 0 ? -1 : tokenOf(rank);
    record[HEAD + place] = __float_as_int(rank == 0 ? NEGATIVE_INFINITY : logitOf((uint32)(rank >> 32)));
  }

  const float inverse = inverseTemperatures[blockIdx.x];
  float rest = 0, restAtTemperature = 0;
  int isRubbish = 0;
#pragma unroll
  for (int i = 0; i < JOIN_PER_THREAD; i++) {
    if (ranks[i] == 0 || ranks[i] >= threshold) continue;
    const float below = logitOf((uint32)(ranks[i] >> 32)) - most;
    rest += expf(below);
    restAtTemperature += expf(below * inverse);
  }
  for (int part = threadIdx.x; part < parts; part += JOIN_THREADS) {
    const float* summary = partSums + (firstPart + part) * 4;
    isRubbish |= summary[3] == 0;
    if (summary[1] == 0 && summary[2] == 0) continue;
    rest += summary[1] * expf(summary[0] - most);
    restAtTemperature += summary[2] * expf((summary[0] - most) * inverse);
  }
  rest = sumOverBlock(rest, sums);
  restAtTemperature = sumOverBlock(restAtTemperature, sums);
  isRubbish = __syncthreads_or(isRubbish || most == NEGATIVE_INFINITY);
  if (threadIdx.x > 0) return;
  record[2 * HEAD] = __float_as_int(rest);
  record[2 * HEAD + 1] = __float_as_int(restAtTemperature);
  record[2 * HEAD + 2] = isRubbish ? 0 : 1;
  const int target = targets[blockIdx.x];
  record[2 * HEAD + 3] = __float_as_int(target < 0 ? 0 : logits[(int64)blockIdx.x * rowStride + target]);
}
