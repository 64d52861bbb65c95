// Elementwise kernels.
#ifndef TFLITE_DELEGATE_KERNELS_ELEMENTWISE_H_
#define TFLITE_DELEGATE_KERNELS_ELEMENTWISE_H_
namespace block_sparse {
namespace kernels {
struct ElementwiseKernels {};
}  // namespace kernels
}  // namespace block_sparse
#endif  // TFLITE_DELEGATE_KERNELS_ELEMENTWISE_H_
