// What greedy decoding and log-probabilities need of a row of logits, so that rows of a large vocabulary need not go to
// the host: the largest logit, the first index that has it, and the logarithm of the sum of exponentials. One pass, one
// block for each row. Knows no settings of sampling. Contract: CONTRACT.md.
#include "common.cuh"

#define THREADS 1024
#define WARPS (THREADS / WARP)

// Of the logits seen so far: the largest and its first index, and sum exp(logit - most).
struct Summary { float most, sum; int best; };

__device__ __forceinline__ void addLogit(Summary& summary, float logit, int index) {
  if (logit > summary.most) {
    summary.sum = summary.sum * expf(summary.most - logit) + 1;
    summary.most = logit;
    summary.best = index;
  } else if (logit > NEGATIVE_INFINITY) {
    summary.sum += expf(logit - summary.most);
  } else if (isnan(logit)) {
    summary.sum = logit;
  }
}

// Both orders give the same: sums are added after scaling, the lower index of equals wins.
__device__ __forceinline__ Summary joinSummaries(const Summary& a, const Summary& b) {
  const bool isFirst = a.most > b.most || (a.most == b.most && a.best <= b.best);
  const Summary& larger = isFirst ? a : b;
  const Summary& smaller = isFirst ? b : a;
  const float scale = smaller.most == NEGATIVE_INFINITY ? 0 : expf(smaller.most - larger.most);
  // A NaN stays one, though its logits are never the largest.
  const float rest = isnan(smaller.sum) ? smaller.sum : smaller.sum * scale;
  return Summary{larger.most, larger.sum + rest, larger.best};
}

__device__ __forceinline__ Summary joinOverLanes(Summary own) {
  for (int step = WARP / 2; step > 0; step /= 2) {
    const Summary other = {__shfl_xor_sync(FULL_WARP, own.most, step), __shfl_xor_sync(FULL_WARP, own.sum, step), __shfl_xor_sync(FULL_WARP, own.best, step)};
    own = joinSummaries(own, other);
  }
  return own;
}

extern "C" __global__ void __launch_bounds__(THREADS)
summarize_logits(const float* logits, int rowStride, int vocab, int* best, float* sums) {
  __shared__ Summary ofWarps[WARPS];
  letNextBegin();
  awaitInputs();
  const float* row = logits + (int64)blockIdx.x * rowStride;
  Summary own = {NEGATIVE_INFINITY, 0, vocab};
  for (int first = threadIdx.x; first < vocab; first += THREADS * 8) {
    float some[8];
#pragma unroll
    for (int j = 0; j < 8; j++) some[j] = first + j * THREADS < vocab ? row[first + j * THREADS] : NEGATIVE_INFINITY;
#pragma unroll
    for (int j = 0; j < 8; j++) addLogit(own, some[j], first + j * THREADS);
  }
  own = joinOverLanes(own);
  if (threadIdx.x % WARP == 0) ofWarps[threadIdx.x / WARP] = own;
  __syncthreads();
  if (threadIdx.x >= WARP) return;
  own = joinOverLanes(ofWarps[threadIdx.x]);
  if (threadIdx.x > 0) return;
  const bool isSound = own.best < vocab && !isnan(own.sum) && own.most < -NEGATIVE_INFINITY;
  best[blockIdx.x] = isSound ? own.best : -1;
  sums[blockIdx.x] = own.most + logf(own.sum);
}
