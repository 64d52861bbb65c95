// The TFLite delegate: which nodes are claimed, and running them as internal graphs.
#ifndef TFLITE_DELEGATE_DELEGATE_H_
#define TFLITE_DELEGATE_DELEGATE_H_

#include "tensorflow/lite/core/c/common.h"
#include "tflite_delegate/options.h"
#include "tflite_delegate/version.h"

namespace block_sparse {

TfLiteDelegate* CreateDelegate(const DelegateOptions& options);
// Null is fine. Interpreters that it was applied to run on without it; it must not be applied to them again.
void DestroyDelegate(TfLiteDelegate* delegate);
// The kernels that the delegate uses: what the option `cpu` came to on this CPU.
const char* CpuLevel(const TfLiteDelegate* delegate);

}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_DELEGATE_H_
