#include "tflite_delegate/format/key_reader.h"

#include <cstring>

namespace block_sparse::format {

std::string DecimalOf(int64_t value) {
  char digits[20];
  size_t count = 0;
  uint64_t rest = value < 0 ? uint64_t{0} - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  do {
    digits[count++] = static_cast<char>('0' + rest % 10);
    rest /= 10;
  } while (rest != 0);
  std::string text;
  if (value < 0) text += '-';
  while (count > 0) text += digits[--count];
  return text;
}

std::string Quoted(Bytes text) {
  constexpr size_t kLongest = 40;
  std::string quoted = "\"";
  for (size_t i = 0; i < text.size && i < kLongest; ++i) {
    const uint8_t c = text.data[i];
    quoted += c >= 0x20 && c < 0x7f && c != '"' ? static_cast<char>(c) : '?';
  }
  quoted += text.size > kLongest ? "...\"" : "\"";
  return quoted;
}

bool KeyReader::Fail(const std::string& message) {
  *error_ = message;
  return false;
}

bool KeyReader::Fail(const char* key, const std::string& message) {
  *error_ = "key \"";
  *error_ += key;
  *error_ += "\" ";
  *error_ += message;
  return false;
}

bool KeyReader::Get(const char* key, FlexValue::Kind kind, const std::string& expected, FlexValue* value) {
  *value = map_->Find(key);
  if (value->kind == kind) return true;
  if (value->kind == FlexValue::Kind::kAbsent) return Fail(key, "is missing; expected " + expected);
  if (value->kind == FlexValue::Kind::kBroken) {
    return Fail(key, std::string("is broken (") + value->type_name + ", its bytes invalid); expected " + expected);
  }
  return Fail(key, std::string("is ") + value->type_name + "; expected " + expected);
}

bool KeyReader::Int(const char* key, int64_t low, int64_t high, int32_t* value) {
  const std::string expected =
      low == high ? "the integer " + Decimal(low) : "an integer from " + Decimal(low) + " to " + Decimal(high);
  FlexValue found;
  if (!Get(key, FlexValue::Kind::kInt, expected, &found)) return false;
  if (found.integer < low || found.integer > high) {
    return Fail(key, "is " + Decimal(found.integer) + "; expected " + expected);
  }
  *value = static_cast<int32_t>(found.integer);
  return true;
}

bool KeyReader::Bool(const char* key, bool* value) {
  FlexValue found;
  if (!Get(key, FlexValue::Kind::kBool, "a bool", &found)) return false;
  *value = found.integer != 0;
  return true;
}

bool KeyReader::Blob(const char* key, Bytes* value) {
  FlexValue found;
  if (!Get(key, FlexValue::Kind::kBlob, "a blob", &found)) return false;
  *value = found.bytes;
  return true;
}

bool KeyReader::Blob(const char* key, uint64_t size, Bytes* value) {
  if (!Blob(key, value)) return false;
  if (value->size == size) return true;
  return Fail(key, "has " + Decimal(value->size) + " bytes; expected " + Decimal(size));
}

bool KeyReader::Choice(const char* key, const std::vector<const char*>& choices, size_t* index) {
  std::string expected = "one of the strings";
  for (size_t i = 0; i < choices.size(); ++i) {
    expected += i == 0 ? " \"" : ", \"";
    expected += choices[i];
    expected += '"';
  }
  FlexValue found;
  if (!Get(key, FlexValue::Kind::kString, expected, &found)) return false;
  for (size_t i = 0; i < choices.size(); ++i) {
    const size_t length = std::strlen(choices[i]);
    if (found.bytes.size == length && std::memcmp(found.bytes.data, choices[i], length) == 0) {
      *index = i;
      return true;
    }
  }
  return Fail(key, "is " + Quoted(found.bytes) + "; expected " + expected);
}

}  // namespace block_sparse::format
