// Ascending positions stored as gaps in unsigned LEB128 (docs/format.md).
#ifndef TFLITE_DELEGATE_FORMAT_GAPS_H_
#define TFLITE_DELEGATE_FORMAT_GAPS_H_

#include <cstddef>
#include <cstdint>

#include "tflite_delegate/format/flexbuffer.h"

namespace block_sparse::format {

class GapReader {
 public:
  explicit GapReader(Bytes bytes) : bytes_(bytes) {}

  bool AtEnd() const { return next_ == bytes_.size; }

  // Decodes one gap. False where the bytes end within it or it does not fit 32 bits.
  bool Gap(uint64_t* gap) {
    uint64_t value = 0;
    for (int shift = 0; shift < 35; shift += 7) {
      if (AtEnd()) return false;
      const uint8_t byte = bytes_.data[next_++];
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) {
        *gap = value;
        return value < (uint64_t{1} << 32);
      }
    }
    return false;
  }

 private:
  Bytes bytes_;
  size_t next_ = 0;
};

}  // namespace block_sparse::format

#endif  // TFLITE_DELEGATE_FORMAT_GAPS_H_
