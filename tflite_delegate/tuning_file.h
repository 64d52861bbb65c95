// Where the fastest ways of computing layers are kept: option `tuning_path`.
#ifndef TFLITE_DELEGATE_TUNING_FILE_H_
#define TFLITE_DELEGATE_TUNING_FILE_H_

#include <string>

#include "tflite_delegate/graph/tuning.h"
#include "tflite_delegate/kernels/kernels.h"

namespace block_sparse {

// What the file holds for this library, CPU and kernels; nothing if there is no such file.
graph::Tuning ReadTuning(const std::string& path, const kernels::KernelTable& kernels);

}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_TUNING_FILE_H_
