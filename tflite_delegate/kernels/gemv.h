// Matrix times vector.
#ifndef TFLITE_DELEGATE_KERNELS_GEMV_H_
#define TFLITE_DELEGATE_KERNELS_GEMV_H_
namespace block_sparse {
namespace kernels {
struct GemvKernels {};
}  // namespace kernels
}  // namespace block_sparse
#endif  // TFLITE_DELEGATE_KERNELS_GEMV_H_
