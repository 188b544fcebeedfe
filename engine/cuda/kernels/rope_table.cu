// Turns of the rotary embedding (arXiv 2104.09864) for a step's positions, once a step for all layers. The angle is
// reduced in float64, so that positions in the millions keep their accuracy. Knows no RoPE type: frequencies are given.
#include "common.cuh"

extern "C" __global__ void rope_table(const double* frequencies, const int* frequencyRow, const int* positions,
                                      float* out, int pairs, float factor) {
  letNextBegin();
  awaitInputs();
  const int row = blockIdx.x;
  const double* own = frequencies + (int64)(frequencyRow == nullptr ? 0 : frequencyRow[row]) * pairs;
  for (int pair = threadIdx.x; pair < pairs; pair += blockDim.x) {
    // In turns of pi the reduction is exact; the rest is small enough for float arithmetic.
    const double halfTurns = positions[row] * own[pair] * 0.31830988618379067154;
    const double rest = halfTurns - 2.0 * rint(halfTurns * 0.5);
    float sine, cosine;
    sincospif((float)rest, &sine, &cosine);
    float2 turn = make_float2(cosine * factor, sine * factor);
    *(float2*)(out + ((int64)row * pairs + pair) * 2) = turn;
  }
}
