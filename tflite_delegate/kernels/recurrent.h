// The gates of recurrent layers, for a run of units.
#ifndef TFLITE_DELEGATE_KERNELS_RECURRENT_H_
#define TFLITE_DELEGATE_KERNELS_RECURRENT_H_

#include <cstdint>

namespace block_sparse {
namespace kernels {

// Each gate has a run of `units` numbers; what comes from the input and what comes from the state are apart.
struct RecurrentKernels {
  // z = logistic(input[0] + state[0]), r = logistic(input[1] + state[1]), c = tanh(input[2] + r * state[2]),
  // next = z * h + (1 - z) * c. next may be h.
  void (*gru)(const float* const* input, const float* const* state, const float* h, float* next, int64_t units);
  // y = logistic(input + state) * h
  void (*reset)(const float* input, const float* state, const float* h, float* y, int64_t units);
  // z = logistic(input[0] + state), c = tanh(input[2] + candidate), next = z * h + (1 - z) * c. next may be h.
  void (*update)(const float* const* input, const float* state, const float* candidate, const float* h, float* next,
                 int64_t units);
  // i, f, o = logistic(input[k] + state[k]) for k = 0, 1, 3, g = tanh(input[2] + state[2]),
  // next_c = f * c + i * g, next = o * tanh(next_c). next_c may be c.
  void (*lstm)(const float* const* input, const float* const* state, const float* c, float* next_c, float* next,
               int64_t units);
};

}  // namespace kernels
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_KERNELS_RECURRENT_H_
