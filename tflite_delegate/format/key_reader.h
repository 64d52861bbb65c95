// Typed, range-checked access to the keys of an options map. Each failure leaves one sentence that names the key, says
// what stands there and what is expected.
#ifndef TFLITE_DELEGATE_FORMAT_KEY_READER_H_
#define TFLITE_DELEGATE_FORMAT_KEY_READER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tflite_delegate/format/flexbuffer.h"

namespace block_sparse::format {

// std::to_string is library code, which an Android build would have to link; this is not.
std::string DecimalOf(int64_t value);
template <class Integer>
std::string Decimal(Integer value) {
  return DecimalOf(static_cast<int64_t>(value));
}

// Untrusted text as it may stand in a message: quoted, printable ASCII only, cut to a sensible length.
std::string Quoted(Bytes text);

class KeyReader {
 public:
  KeyReader(const FlexMap* map, std::string* error) : map_(map), error_(error) {}

  bool Has(const char* key) const { return map_->Find(key).kind != FlexValue::Kind::kAbsent; }
  // An integer in [low, high].
  bool Int(const char* key, int64_t low, int64_t high, int32_t* value);
  bool Bool(const char* key, bool* value);
  bool Blob(const char* key, Bytes* value);
  // A blob of exactly `size` bytes.
  bool Blob(const char* key, uint64_t size, Bytes* value);
  // The index in `choices` of the string that stands at `key`.
  bool Choice(const char* key, const std::vector<const char*>& choices, size_t* index);

  // Writes `key "<key>" <message>`; always false, so that it can be returned.
  bool Fail(const char* key, const std::string& message);
  // The same without a key.
  bool Fail(const std::string& message);

 private:
  // Value of the wanted kind, or a failure that says what stands there instead.
  bool Get(const char* key, FlexValue::Kind kind, const std::string& expected, FlexValue* value);

  const FlexMap* map_;
  std::string* error_;
};

}  // namespace block_sparse::format

#endif  // TFLITE_DELEGATE_FORMAT_KEY_READER_H_
