// The two symbols of TFLite's external-delegate interface: all that this library exports.
#include <cstddef>
#include <string>

#include "tflite_delegate/delegate.h"
#include "tflite_delegate/log.h"

extern "C" {

__attribute__((visibility("default"))) TfLiteDelegate* tflite_plugin_create_delegate(
    const char* const* keys, const char* const* values, size_t count, void (*report_error)(const char*)) {
  block_sparse::DelegateOptions options;
  std::string error;
  if (!block_sparse::ParseDelegateOptions(keys, values, count, &options, &error)) {
    // Some clients pass no way to report; the log is better than silence.
    if (report_error != nullptr) {
      report_error(("block_sparse: " + error).c_str());
    } else {
      block_sparse::Log(error);
    }
    return nullptr;
  }
  return block_sparse::CreateDelegate(options);
}

__attribute__((visibility("default"))) void tflite_plugin_destroy_delegate(TfLiteDelegate* delegate) {
  block_sparse::DestroyDelegate(delegate);
}

}  // extern "C"
