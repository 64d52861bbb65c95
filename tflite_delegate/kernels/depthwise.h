// Depthwise kernels.
#ifndef TFLITE_DELEGATE_KERNELS_DEPTHWISE_H_
#define TFLITE_DELEGATE_KERNELS_DEPTHWISE_H_
namespace block_sparse {
namespace kernels {
struct DepthwiseKernels {};
}  // namespace kernels
}  // namespace block_sparse
#endif  // TFLITE_DELEGATE_KERNELS_DEPTHWISE_H_
