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

__device__ __forceinline__ int64 pageOffset(int page, int kvHead, int kvHeads) {
  return ((int64)page * kvHeads + kvHead) * PAGE_ELEMENTS;
}

// [4 logical pages, 2 (minimum, maximum), HEAD_DIM]
__device__ __forceinline__ int64 statisticsOffset(int page, int kvHead, int kvHeads) {
  return ((int64)page * kvHeads + kvHead) * (LOGICAL_PER_PAGE * 2 * HEAD_DIM);
}

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
