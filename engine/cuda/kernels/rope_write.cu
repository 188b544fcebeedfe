// One pass over the fused product q, k, v of a layer: bias, head norm, RoPE; q back in place, k and v to their pages,
// statistics of the logical pages (LServe, arXiv 2502.14866). A block has one run (a chunk's tokens in one logical
// page) of one KV head, so statistics need no atomics. Knows no lists. Contract: CONTRACT.md.
#define THREADS 128
#include "head-vector.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
rope_write(element* qkv, int rowStride, const element* bias, const element* qNorm, const element* kNorm, float eps,
           const float* ropeTable, const int* runs, element* keys, element* values, element* statistics,
           const int* pageRows, int pageHeads, int kvHeads, int group) {
  const int4 run = *(const int4*)(runs + blockIdx.x * 4);
  const int firstRow = run.x, count = run.y, tail = run.w;
  if (count == 0) return awaitInputs();
  const int slot = run.z % PAGE_TOKENS, kvHead = blockIdx.y, heads = kvHeads * group;
  const int pageRow = rowOf(PageRows{pageRows, pageHeads}, run.z / PAGE_TOKENS, kvHead);
  letNextBegin();
  awaitInputs();
  __shared__ alignas(16) element logical[LOGICAL_TOKENS * HEAD_DIM];

  stored* keyPage = rowAt(keys, pageRow);
  stored* valuePage = rowAt(values, pageRow);
  const int before = slot % LOGICAL_TOKENS;
  for (int i = threadIdx.x; i < before * HEAD_DIM; i += THREADS) {
    logical[i] = readPage(keyPage, slot - before + i / HEAD_DIM, i % HEAD_DIM);
  }

  // Vectors of the run: keys, values, then the queries that share the KV head.
  const int lane = threadIdx.x % LANES;
  const int numVectors = count * (group + 2);
  for (int first = 0; first < numVectors; first += AT_ONCE) {
    const int index = first + threadIdx.x / LANES;
    const bool isVector = index < numVectors;
    const int part = isVector ? index / count : 1;
    const int token = isVector ? index % count : 0;
    const int head = part == 0 ? heads + kvHead : part == 1 ? heads + kvHeads + kvHead : kvHead * group + part - 2;
    element* at = qkv + (int64)(firstRow + token) * rowStride + head * HEAD_DIM;
    Vector x = loadVector(at, bias == nullptr ? nullptr : bias + head * HEAD_DIM, lane);
    const element* norm = part == 0 ? kNorm : qNorm;
    if (kNorm != nullptr) {
      Vector normed = x;
      normalizeVector(normed, norm, eps, lane);
      if (part != 1) x = normed;
    }
    if (part != 1) turnVector(x, ropeTable + (int64)(firstRow + token) * HEAD_DIM, lane);
    const float scale = scaleOf(sizeOf(x));
    if (!isVector) continue;
    if (part == 0) {
      storeToPage(x, keyPage, slot + token, lane, scale);
      storeVector(x, logical + (before + token) * HEAD_DIM, lane);
    } else if (part == 1) {
      storeToPage(x, valuePage, slot + token, lane, scale);
    } else {
      storeVector(x, at, lane);
    }
  }
  if (slot == 0) zeroTail(valuePage, tail);
  __syncthreads();
  storeStatistics(logical, before + count, statistics + statisticsOffset(pageRow) + slot / LOGICAL_TOKENS * 2 * HEAD_DIM);
}
