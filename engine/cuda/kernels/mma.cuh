// The tensor core's product of two 16-bit tiles and the loads that feed it (8.0 and later). In a fragment, lane =
// 4 * g + t. Knows no page.
#pragma once
#include "common.cuh"

// sum[16 rows, 8 columns] += a[16, 16] b[16, 8]. a: rows g, g + 8; k 2t.. and 2t + 8..; b: column g, the same k;
// sum: rows g (0, 1) and g + 8 (2, 3), columns 2t, 2t + 1.
__device__ __forceinline__ void multiplyTile(float (&sum)[4], const uint32 (&a)[4], uint32 b0, uint32 b1) {
#ifdef ELEMENT_FP16
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#else
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#endif
    : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint32 sharedAddress(const void* pointer) { return (uint32)__cvta_generic_to_shared(pointer); }

// Four 8 x 8 tiles; lane l gives the address of row l % 8 of tile l / 8.
__device__ __forceinline__ void loadTiles(uint32 (&tiles)[4], uint32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
    : "=r"(tiles[0]), "=r"(tiles[1]), "=r"(tiles[2]), "=r"(tiles[3]) : "r"(address) : "memory");
}

__device__ __forceinline__ void loadTilesTransposed(uint32 (&tiles)[4], uint32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
    : "=r"(tiles[0]), "=r"(tiles[1]), "=r"(tiles[2]), "=r"(tiles[3]) : "r"(address) : "memory");
}

// 16 bytes from global to shared memory, in the background.
__device__ __forceinline__ void copyAhead(uint32 to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(to), "l"(from) : "memory");
}

// 4 bytes.
__device__ __forceinline__ void copyPairAhead(uint32 to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"(to), "l"(from) : "memory");
}

__device__ __forceinline__ void endCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int PENDING> __device__ __forceinline__ void awaitCopies() { asm volatile("cp.async.wait_group %0;" :: "n"(PENDING) : "memory"); }
