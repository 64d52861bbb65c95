// Placeholder of the two entry points, replaced by the real ones.
#include <cstddef>

#include "tensorflow/lite/builtin_ops.h"
#include "tensorflow/lite/core/c/builtin_op_data.h"
#include "tensorflow/lite/core/c/common.h"

extern "C" {
__attribute__((visibility("default"))) TfLiteDelegate* tflite_plugin_create_delegate(const char* const*,
                                                                                     const char* const*, size_t,
                                                                                     void (*report_error)(const char*)) {
  if (report_error != nullptr) report_error("not built yet");
  return nullptr;
}
__attribute__((visibility("default"))) void tflite_plugin_destroy_delegate(TfLiteDelegate*) {}
}
