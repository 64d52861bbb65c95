// Where the delegate speaks: Android's log, elsewhere the standard error stream.
#ifndef TFLITE_DELEGATE_LOG_H_
#define TFLITE_DELEGATE_LOG_H_

#include <string>

namespace block_sparse {

void Log(const std::string& line);

}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_LOG_H_
