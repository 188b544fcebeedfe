// The pages that one unit of attention reads, in order: picked pages, fixed pages, the chunk's own pages; and which
// tokens of each are visible. Shared by the attention kernels; knows no arithmetic of attention.
#pragma once
#include "page.cuh"

// What a page lets a query see: slots low..high - 1, of these the ones not after the query (own + slot <= token of the
// chunk) and inside its window (position + slot > start + token - window).
struct Visible { int low, high, own, position; };

#define NOT_OWN (-(1 << 30))

struct FinishedList {
  const int* picked; const int* fixed; const int* fixedPositions; const int* own;
  int numPicked, numListed, numEntries, lastTokens, start, isMerged;
};

// `lastToken`: the last token of the chunk that a query of the unit has; later pages are not read.
__device__ __forceinline__ FinishedList finishList(const Chunk& chunk, const List& list, const int* entries, const int* entryPositions,
                                                   const int* picked, int lastToken) {
  FinishedList finished;
  finished.picked = picked;
  finished.fixed = entries + list.fixed;
  finished.fixedPositions = entryPositions == nullptr ? nullptr : entryPositions + list.fixed;
  finished.own = entries + chunk.ownPages;
  finished.numPicked = list.pick;
  finished.start = chunk.start;
  finished.lastTokens = list.tokens - (list.pick + list.numFixed - 1) * PAGE_TOKENS;
  // The list's partial last page is mostly the page that the chunk goes on with: it is read once.
  finished.isMerged = list.numFixed > 0 && chunk.start % PAGE_TOKENS != 0 && finished.fixed[list.numFixed - 1] == finished.own[0];
  finished.numListed = list.pick + list.numFixed - finished.isMerged;
  const int numOwn = (chunk.start + lastToken) / PAGE_TOKENS - chunk.start / PAGE_TOKENS + 1;
  finished.numEntries = finished.numListed + numOwn;
  return finished;
}

__device__ __forceinline__ int pageAt(const FinishedList& list, int entry) {
  if (entry >= list.numEntries) return 0;
  if (entry < list.numPicked) return list.picked[entry];
  return entry < list.numListed ? list.fixed[entry - list.numPicked] : list.own[entry - list.numListed];
}

__device__ __forceinline__ Visible visibleAt(const FinishedList& list, int entry) {
  if (entry >= list.numListed) {
    const int position = (list.start / PAGE_TOKENS + entry - list.numListed) * PAGE_TOKENS;
    const bool isFirst = entry == list.numListed;
    return Visible{isFirst && !list.isMerged ? list.start % PAGE_TOKENS : 0, PAGE_TOKENS, position - list.start, position};
  }
  const int position = list.fixedPositions == nullptr || entry < list.numPicked ? 0 : list.fixedPositions[entry - list.numPicked];
  const bool isLast = entry == list.numListed - 1 && !list.isMerged;
  return Visible{0, isLast ? list.lastTokens : PAGE_TOKENS, NOT_OWN, position};
}

// Whether a query of tokens firstToken.. may see less than the whole page.
__device__ __forceinline__ bool hidesSome(const Visible& page, int firstToken, int window) {
  return page.low > 0 || page.high < PAGE_TOKENS || page.own + PAGE_TOKENS - 1 > firstToken || window > 0;
}

__device__ __forceinline__ bool isVisible(const Visible& page, int slot, int token, int start, int window) {
  return slot >= page.low && slot < page.high && page.own + slot <= token && (window <= 0 || page.position + slot > start + token - window);
}
