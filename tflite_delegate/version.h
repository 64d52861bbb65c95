// What the library says of itself.
#ifndef TFLITE_DELEGATE_VERSION_H_
#define TFLITE_DELEGATE_VERSION_H_

// Written by the build: kKernels, a fingerprint of all sources that decide how long a layer takes, by which latencies
// that were measured with others are known. Builds by other tools than Bazel have none.
#if __has_include("tflite_delegate/kernels_fingerprint.h")
#include "tflite_delegate/kernels_fingerprint.h"
#else
namespace block_sparse {
constexpr char kKernels[] = "unknown";
}  // namespace block_sparse
#endif

namespace block_sparse {

constexpr char kVersion[] = "0.1.0";

}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_VERSION_H_
