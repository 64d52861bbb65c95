// Reads a FlexBuffer whose root is a map, from bytes that nobody vouches for. Nothing is trusted: each size and offset
// is checked against the buffer before it is followed, no alignment is assumed, and no recursion can be provoked.
#ifndef TFLITE_DELEGATE_FORMAT_FLEXBUFFER_H_
#define TFLITE_DELEGATE_FORMAT_FLEXBUFFER_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace block_sparse::format {

// A stretch of bytes inside the buffer that was read.
struct Bytes {
  const uint8_t* data = nullptr;
  size_t size = 0;
};

struct FlexValue {
  enum class Kind {
    kAbsent,  // no such key
    kBroken,  // the key is there, its value lies outside the buffer or has an unknown type
    kInt,
    kBool,
    kString,
    kBlob,
    kOther,  // well-known to FlexBuffers but of no use here: null, float, key, map, vectors
  };
  Kind kind = Kind::kAbsent;
  int64_t integer = 0;         // kInt, kBool (0 or 1); an unsigned value past INT64_MAX saturates
  Bytes bytes;                 // kString (without the closing zero), kBlob
  const char* type_name = "";  // with its article: "an integer", "a string"
};

class FlexMap {
 public:
  // Checks the root, the keys and the extent of the element table; `data` must outlive the map. False with a reason in
  // `*error` unless this is a map whose keys ascend strictly, as every FlexBuffer writer leaves them (so no key can
  // stand twice with two meanings).
  bool Open(const uint8_t* data, size_t size, std::string* error);

  FlexValue Find(const char* key) const;

  size_t size() const { return count_; }

 private:
  bool Key(size_t index, Bytes* key) const;

  Bytes buffer_;
  size_t keys_ = 0;  // position of the first key offset
  size_t key_width_ = 1;
  size_t elements_ = 0;  // position of the first element
  size_t width_ = 1;
  size_t count_ = 0;
};

}  // namespace block_sparse::format

#endif  // TFLITE_DELEGATE_FORMAT_FLEXBUFFER_H_
