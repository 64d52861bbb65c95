// The delegate's own options, as keys and values of the external-delegate interface.
#ifndef TFLITE_DELEGATE_OPTIONS_H_
#define TFLITE_DELEGATE_OPTIONS_H_

#include <cstddef>
#include <string>

#include "tflite_delegate/kernels/kernels.h"

namespace block_sparse {

struct DelegateOptions {
  int num_threads = 1;
  const kernels::KernelTable* kernels = nullptr;  // option `cpu`
  bool verbose = false;
  bool profile = false;
  std::string report_path;
  std::string tuning_path;  // empty: nothing is measured
};

// False, with *error naming the key, if one is unknown or its value is bad.
bool ParseDelegateOptions(const char* const* keys, const char* const* values, size_t count, DelegateOptions* options,
                          std::string* error);

}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_OPTIONS_H_
