#include "tflite_delegate/log.h"

#if defined(__ANDROID__)
#include <android/log.h>
#else
#include <cstdio>
#endif

namespace block_sparse {

void Log(const std::string& line) {
#if defined(__ANDROID__)
  __android_log_write(ANDROID_LOG_INFO, "block_sparse", line.c_str());
#else
  fprintf(stderr, "block_sparse: %s\n", line.c_str());
#endif
}

}  // namespace block_sparse
