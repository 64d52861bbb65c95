// The TFLite delegate: which nodes are claimed, and running them as internal graphs.
#ifndef TFLITE_DELEGATE_DELEGATE_H_
#define TFLITE_DELEGATE_DELEGATE_H_

#include "tensorflow/lite/core/c/common.h"
#include "tflite_delegate/options.h"

namespace block_sparse {

constexpr char kVersion[] = "0.1.0";

TfLiteDelegate* CreateDelegate(const DelegateOptions& options);
void DestroyDelegate(TfLiteDelegate* delegate);  // null is fine

}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_DELEGATE_H_
