// The two ways in which ascending positions are stored (docs/format.md): gaps as LEB128 bytes, and as Rice-coded bits.
#ifndef TFLITE_DELEGATE_FORMAT_GAPS_H_
#define TFLITE_DELEGATE_FORMAT_GAPS_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tflite_delegate/format/flexbuffer.h"

namespace block_sparse::format {

class ByteGapReader {
 public:
  explicit ByteGapReader(Bytes bytes) : bytes_(bytes) {}

  bool AtEnd() const { return next_ == bytes_.size; }

  // Decodes one gap. False where the bytes end within it or it does not fit 32 bits.
  bool Gap(uint64_t* gap) {
    if (!AtEnd() && bytes_.data[next_] < 0x80) {  // nearly always
      *gap = bytes_.data[next_++];
      return true;
    }
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

// Bits are counted from the least significant of each byte.
inline bool Bit(Bytes bytes, uint64_t index) { return (bytes.data[index / 8] >> (index % 8) & 1) != 0; }
inline uint64_t BytesForBits(uint64_t bits) { return (bits + 7) / 8; }
// Whether the bits from `index` on to the end of the bytes are 0.
inline bool RestIsZero(Bytes bytes, uint64_t index) {
  for (; index < uint64_t{8} * bytes.size; ++index) {
    if (Bit(bytes, index)) return false;
  }
  return true;
}

// Quotients in unary (zeros ended by a one) in `high`, remainders of `low_bits` bits in `low`.
class BitGapReader {
 public:
  BitGapReader(Bytes high, Bytes low, int low_bits) : high_(high), low_(low), low_bits_(low_bits) {}

  // Decodes one gap below `limit` (at most 2^62). False where `high` ends or the gap is too large; `low` must be long
  // enough for the gaps in `high`.
  bool Gap(uint64_t limit, uint64_t* gap) {
    const uint64_t start = next_high_;
    const uint64_t end = uint64_t{8} * high_.size;
    uint64_t bits = 0;
    while (next_high_ < end && (bits = BitsFrom(high_, next_high_)) == 0) next_high_ += kBits;
    if (next_high_ >= end) {
      next_high_ = end;
      return false;
    }
    next_high_ += static_cast<uint64_t>(__builtin_ctzll(bits));
    const uint64_t quotient = next_high_++ - start;
    const uint64_t remainder = BitsFrom(low_, next_low_) & ((uint64_t{1} << low_bits_) - 1);
    next_low_ += static_cast<uint64_t>(low_bits_);
    if (quotient > (limit >> low_bits_)) return false;
    *gap = quotient << low_bits_ | remainder;
    return *gap < limit;
  }

 private:
  static constexpr uint64_t kBits = 57;

  // At least so many bits from bit `index` on, on a little-endian CPU; past the end they are 0.
  static uint64_t BitsFrom(Bytes bytes, uint64_t index) {
    const size_t first = static_cast<size_t>(index / 8);
    uint64_t word = 0;
    if (first + sizeof word <= bytes.size) {
      memcpy(&word, bytes.data + first, sizeof word);
    } else {
      for (size_t i = first; i < bytes.size; ++i) word |= uint64_t{bytes.data[i]} << (8 * (i - first));
    }
    return word >> (index % 8);
  }

  Bytes high_, low_;
  int low_bits_;
  uint64_t next_high_ = 0, next_low_ = 0;
};

}  // namespace block_sparse::format

#endif  // TFLITE_DELEGATE_FORMAT_GAPS_H_
