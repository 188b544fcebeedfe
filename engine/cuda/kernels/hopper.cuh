// Hopper's own instructions (sm_90a): barriers in shared memory that count bytes, bulk copies, products by a warpgroup.
// Knows no page and no attention.
#pragma once
#include "mma.cuh"

// ---- barriers in shared memory ----

__device__ __forceinline__ void initBarrier(uint32 barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r"(barrier), "r"(arrivals) : "memory");
}

__device__ __forceinline__ void publishBarriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

__device__ __forceinline__ void arrive(uint32 barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(barrier) : "memory");
}

__device__ __forceinline__ void expectBytes(uint32 barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" :: "r"(barrier), "r"(bytes) : "memory");
}

// Until the phase of that parity has ended.
__device__ __forceinline__ void awaitPhase(uint32 barrier, int parity) {
  uint32 hasEnded = 0;
  while (hasEnded == 0) {
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
      : "=r"(hasEnded) : "r"(barrier), "r"(parity) : "memory");
  }
}

// Bytes from global to shared memory; arrives at the barrier by their number.
__device__ __forceinline__ void copyBulk(uint32 to, const void* from, int bytes, uint32 barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
    :: "r"(to), "l"(from), "r"(bytes), "r"(barrier) : "memory");
}

// ---- roles ----

template <int REGISTERS> __device__ __forceinline__ void giveRegisters() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" :: "n"(REGISTERS)); }
template <int REGISTERS> __device__ __forceinline__ void takeRegisters() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" :: "n"(REGISTERS)); }

__device__ __forceinline__ void awaitTurn(int barrier, int threads) { asm volatile("bar.sync %0, %1;" :: "r"(barrier), "r"(threads) : "memory"); }
__device__ __forceinline__ void giveTurn(int barrier, int threads) { asm volatile("bar.arrive %0, %1;" :: "r"(barrier), "r"(threads) : "memory"); }

// ---- products of a warpgroup ----

// What this thread wrote or copied to shared memory may be read by products, after a barrier.
__device__ __forceinline__ void publishToProducts() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

__device__ __forceinline__ void beginProducts() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void endProducts() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING> __device__ __forceinline__ void awaitProducts() { asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(PENDING) : "memory"); }

// A tile in shared memory, rows of 128 bytes, swizzled: `across` is the step from 64 channels to the next where
// channels are the product's columns (transposed), rows go in groups of 8, 1024 bytes apart.
__device__ __forceinline__ uint64 describeTile(uint32 address, int across) {
  return (uint64)((address & 0x3ffff) >> 4) | (uint64)(across >> 4) << 16 | (uint64)(1024 >> 4) << 32 | 1ull << 62;
}

#ifdef ELEMENT_FP16
#define WGMMA_TYPES ".f32.f16.f16 "
#else
#define WGMMA_TYPES ".f32.bf16.bf16 "
#endif

#define R8(x, i) "+f"(x[i]), "+f"(x[i + 1]), "+f"(x[i + 2]), "+f"(x[i + 3]), "+f"(x[i + 4]), "+f"(x[i + 5]), "+f"(x[i + 6]), "+f"(x[i + 7])

// sum[64 rows, 128 columns] (+)= a[64, 16] b[16, 128]; a in registers as the fragments of multiplyTile.
template <int TRANSPOSED>
__device__ __forceinline__ void multiplyWide(float (&sum)[64], const uint32 (&a)[4], uint64 b, bool adds) {
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %69, 0; wgmma.mma_async.sync.aligned.m64n128k16" WGMMA_TYPES
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
    "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63},"
    "{%64,%65,%66,%67}, %68, p, 1, 1, %70; }"
    : R8(sum, 0), R8(sum, 8), R8(sum, 16), R8(sum, 24), R8(sum, 32), R8(sum, 40), R8(sum, 48), R8(sum, 56)
    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)adds), "n"(TRANSPOSED));
}

// The same with 64 columns.
template <int TRANSPOSED>
__device__ __forceinline__ void multiplyWide(float (&sum)[32], const uint32 (&a)[4], uint64 b, bool adds) {
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %37, 0; wgmma.mma_async.sync.aligned.m64n64k16" WGMMA_TYPES
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31},"
    "{%32,%33,%34,%35}, %36, p, 1, 1, %38; }"
    : R8(sum, 0), R8(sum, 8), R8(sum, 16), R8(sum, 24)
    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)adds), "n"(TRANSPOSED));
}

// The same with 32 columns.
template <int TRANSPOSED>
__device__ __forceinline__ void multiplyWide(float (&sum)[16], const uint32 (&a)[4], uint64 b, bool adds) {
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %21, 0; wgmma.mma_async.sync.aligned.m64n32k16" WGMMA_TYPES
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15},"
    "{%16,%17,%18,%19}, %20, p, 1, 1, %22; }"
    : R8(sum, 0), R8(sum, 8)
    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)adds), "n"(TRANSPOSED));
}

// sum[64 rows, 256 columns] (+)= a[64, 16] b[16, 256]
__device__ __forceinline__ void multiplyWide(float (&sum)[128], const uint32 (&a)[4], uint64 b, bool adds) {
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %133, 0; wgmma.mma_async.sync.aligned.m64n256k16" WGMMA_TYPES
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
    "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,"
    "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,"
    "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127},"
    "{%128,%129,%130,%131}, %132, p, 1, 1, 0; }"
    : R8(sum, 0), R8(sum, 8), R8(sum, 16), R8(sum, 24), R8(sum, 32), R8(sum, 40), R8(sum, 48), R8(sum, 56),
      R8(sum, 64), R8(sum, 72), R8(sum, 80), R8(sum, 88), R8(sum, 96), R8(sum, 104), R8(sum, 112), R8(sum, 120)
    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)adds));
}
