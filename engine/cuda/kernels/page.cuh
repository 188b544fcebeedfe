// Where things lie in a page of KV memory, and in the arrays that describe a step. Knows the layout of CONTRACT.md and
// nothing else; every kernel that touches pages goes through it.
#pragma once
#include "common.cuh"

#define PAGE_TOKENS 64
#define LOGICAL_TOKENS 16
#define LOGICAL_PER_PAGE 4
#define HEAD_PAD ((HEAD_DIM + 63) / 64 * 64)
#define HALVES (HEAD_PAD / 64)
#define ROW_UNITS 8
#define PAGE_ELEMENTS (PAGE_TOKENS * HEAD_PAD)

// Offset of the 16-byte unit that holds channels 8 * unit .. of a token, in elements, within a page of one KV head.
__device__ __forceinline__ int unitOffset(int token, int unit) {
  return ((unit / ROW_UNITS) * PAGE_TOKENS + token) * 64 + ((unit % ROW_UNITS) ^ (token & 7)) * 8;
}

__device__ __forceinline__ int channelOffset(int token, int channel) { return unitOffset(token, channel / 8) + channel % 8; }

// Which row of KV memory a KV head has in a page: of[page * heads + kvHead], `of` beginning with the first head of a layer.
struct PageRows { const int* of; int heads; };

__device__ __forceinline__ int rowOf(const PageRows& pageRows, int page, int kvHead) { return pageRows.of[(int64)page * pageRows.heads + kvHead]; }

// Eight times four pages of a list, the fours `step` apart from `first` on: lane 4i + j has the row of the i-th four's page j.
// Past the end stands the last page.
#define FOURS 8
__device__ __forceinline__ int rowsOfFours(const PageRows& pageRows, const int* pages, int first, int step, int numPages, int kvHead) {
  const int lane = threadIdx.x % WARP;
  return rowOf(pageRows, pages[min(first + lane / 4 * step + lane % 4, numPages - 1)], kvHead);
}

__device__ __forceinline__ int64 rowOffset(int row) { return (int64)row * PAGE_ELEMENTS; }

// [4 logical pages, 2 (minimum, maximum), HEAD_DIM]
__device__ __forceinline__ int64 statisticsOffset(int row) { return (int64)row * (LOGICAL_PER_PAGE * 2 * HEAD_DIM); }

struct Chunk { int firstRow, tokens, start, ownPages, pickSlot, fresh, askTokens, firstList, classOf, perQueryHead; };

__device__ __forceinline__ Chunk readChunk(const int* chunks, int index) {
  const int* at = chunks + index * 16;
  return Chunk{at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7], at[8], at[9]};
}

struct List { int fixed, numFixed, candidates, numCandidates, pick, tokens, perQueryHead; };

// The list that a KV head of a layer reads.
__device__ __forceinline__ List readList(const int* lists, const uint8* classOf, const Chunk& chunk, int kvHeadOfAll) {
  const int* at = lists + (chunk.firstList + classOf[chunk.classOf + kvHeadOfAll]) * 8;
  return List{at[0], at[1], at[2], at[3], at[4], at[5], at[6]};
}

// Where the picks of a query head (the first of the group, where the KV head picks) of a layer lie.
__device__ __forceinline__ int64 selectionOffset(int slot, int layer, int layers, int head, int heads, int maxPick) {
  return (((int64)slot * layers + layer) * heads + head) * maxPick;
}
