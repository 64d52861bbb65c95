#include "tflite_delegate/format/flexbuffer.h"

#include <cstring>
#include <limits>

namespace block_sparse::format {
namespace {

// The wire format's type numbers (upper six bits of a packed type).
enum WireType : uint8_t {
  kNull = 0,
  kInt = 1,
  kUInt = 2,
  kFloat = 3,
  kKey = 4,
  kString = 5,
  kIndirectInt = 6,
  kIndirectUInt = 7,
  kIndirectFloat = 8,
  kMap = 9,
  kVector = 10,
  kLastTypedVector = 24,
  kBlob = 25,
  kBool = 26,
  kVectorBool = 36,
};

// Longer keys are refused, so that checking their order stays linear in the size of the buffer.
constexpr size_t kMaxKeyLength = 255;

bool IsWidth(uint64_t width) { return width == 1 || width == 2 || width == 4 || width == 8; }

bool Contains(Bytes buffer, size_t position, size_t length) {
  return position <= buffer.size && length <= buffer.size - position;
}

// Little endian, any alignment. The caller has checked the extent.
uint64_t ReadUnsigned(Bytes buffer, size_t position, size_t width) {
  uint64_t value = 0;
  for (size_t i = 0; i < width; ++i) value |= static_cast<uint64_t>(buffer.data[position + i]) << (8 * i);
  return value;
}

int64_t ReadSigned(Bytes buffer, size_t position, size_t width) {
  uint64_t value = ReadUnsigned(buffer, position, width);
  const uint64_t sign = uint64_t{1} << (8 * width - 1);
  value = (value ^ sign) - sign;
  int64_t result;
  std::memcpy(&result, &value, sizeof(result));
  return result;
}

int64_t Saturate(uint64_t value) {
  constexpr uint64_t kMax = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  return static_cast<int64_t>(value < kMax ? value : kMax);
}

// Offsets point backwards from where they stand.
bool Follow(Bytes buffer, size_t position, size_t width, size_t* target) {
  if (!Contains(buffer, position, width)) return false;
  const uint64_t offset = ReadUnsigned(buffer, position, width);
  if (offset > position) return false;
  *target = position - static_cast<size_t>(offset);
  return true;
}

// A size field of `width` bytes stands just before `position`.
bool ReadSize(Bytes buffer, size_t position, size_t width, size_t* size) {
  if (position < width || !Contains(buffer, position - width, width)) return false;
  const uint64_t value = ReadUnsigned(buffer, position - width, width);
  if (value > buffer.size) return false;
  *size = static_cast<size_t>(value);
  return true;
}

const char* TypeName(uint8_t type) {
  switch (type) {
    case kNull:
      return "null";
    case kInt:
    case kUInt:
    case kIndirectInt:
    case kIndirectUInt:
      return "an integer";
    case kFloat:
    case kIndirectFloat:
      return "a floating-point number";
    case kKey:
      return "a key";
    case kString:
      return "a string";
    case kMap:
      return "a map";
    case kBlob:
      return "a blob";
    case kBool:
      return "a bool";
    case kVectorBool:
      return "a vector";
    default:
      return type >= kVector && type <= kLastTypedVector ? "a vector" : "of unknown type";
  }
}

int Compare(Bytes a, Bytes b) {
  const size_t shorter = a.size < b.size ? a.size : b.size;
  const int order = shorter == 0 ? 0 : std::memcmp(a.data, b.data, shorter);
  if (order != 0) return order;
  return a.size < b.size ? -1 : a.size > b.size ? 1 : 0;
}

FlexValue Broken(uint8_t type) {
  FlexValue value;
  value.kind = FlexValue::Kind::kBroken;
  value.type_name = TypeName(type);
  return value;
}

// The element at `position`, `parent_width` bytes wide, whose packed type is `packed`.
FlexValue ReadValue(Bytes buffer, size_t position, size_t parent_width, uint8_t packed) {
  const uint8_t type = packed >> 2;
  const size_t own_width = size_t{1} << (packed & 3);
  FlexValue value = Broken(type);
  size_t target;
  switch (type) {
    case kInt:
    case kUInt:
      value.kind = FlexValue::Kind::kInt;
      value.integer = type == kInt ? ReadSigned(buffer, position, parent_width)
                                   : Saturate(ReadUnsigned(buffer, position, parent_width));
      return value;
    case kIndirectInt:
    case kIndirectUInt:
      if (!Follow(buffer, position, parent_width, &target) || !Contains(buffer, target, own_width)) return value;
      value.kind = FlexValue::Kind::kInt;
      value.integer = type == kIndirectInt ? ReadSigned(buffer, target, own_width)
                                           : Saturate(ReadUnsigned(buffer, target, own_width));
      return value;
    case kBool: {
      const uint64_t truth = ReadUnsigned(buffer, position, parent_width);
      if (truth > 1) return value;
      value.kind = FlexValue::Kind::kBool;
      value.integer = static_cast<int64_t>(truth);
      return value;
    }
    case kString:
    case kBlob: {
      size_t size;
      if (!Follow(buffer, position, parent_width, &target) || !ReadSize(buffer, target, own_width, &size) ||
          !Contains(buffer, target, size)) {
        return value;
      }
      value.kind = type == kString ? FlexValue::Kind::kString : FlexValue::Kind::kBlob;
      value.bytes = {buffer.data + target, size};
      return value;
    }
    default:
      if (type <= kLastTypedVector || type == kVectorBool) value.kind = FlexValue::Kind::kOther;
      return value;
  }
}

}  // namespace

bool FlexMap::Open(const uint8_t* data, size_t size, std::string* error) {
  count_ = 0;
  buffer_ = {data, size};
  if (data == nullptr || size == 0) {
    *error = "missing";
    return false;
  }
  // The root stands at the end: its value, its packed type, the width of its value.
  const size_t root_width = data[size - 1];
  if (size < 3 || !IsWidth(root_width) || size < 2 + root_width) {
    *error = "not a FlexBuffer, or truncated";
    return false;
  }
  const uint8_t root_type = data[size - 2] >> 2;
  if (root_type != kMap) {
    *error = "root is ";
    *error += TypeName(root_type);
    *error += ", expected a FlexBuffer map";
    return false;
  }
  *error = "map lies outside the buffer";
  width_ = size_t{1} << (data[size - 2] & 3);
  const size_t root = size - 2 - root_width;
  if (!Follow(buffer_, root, root_width, &elements_)) return false;
  // Before the elements: offset of the keys, width of the keys' offsets, number of elements. After them: their types.
  if (elements_ < 3 * width_) return false;
  size_t count;
  if (!ReadSize(buffer_, elements_, width_, &count)) return false;
  if (count > (size - elements_) / (width_ + 1)) return false;
  const uint64_t key_width = ReadUnsigned(buffer_, elements_ - 2 * width_, width_);
  size_t key_count;
  *error = "map has a broken list of keys";
  if (!IsWidth(key_width)) return false;
  key_width_ = static_cast<size_t>(key_width);
  if (!Follow(buffer_, elements_ - 3 * width_, width_, &keys_)) return false;
  if (!ReadSize(buffer_, keys_, key_width_, &key_count) || key_count != count) return false;
  if (!Contains(buffer_, keys_, 0) || count > (size - keys_) / key_width_) return false;
  Bytes previous;
  for (size_t i = 0; i < count; ++i) {
    Bytes key;
    if (!Key(i, &key)) return false;
    if (i > 0 && Compare(previous, key) >= 0) {
      *error = "keys of the map do not ascend";
      return false;
    }
    previous = key;
  }
  error->clear();
  count_ = count;
  return true;
}

bool FlexMap::Key(size_t index, Bytes* key) const {
  size_t position;
  if (!Follow(buffer_, keys_ + index * key_width_, key_width_, &position)) return false;
  const size_t rest = buffer_.size - position;
  const void* end = std::memchr(buffer_.data + position, 0, rest <= kMaxKeyLength ? rest : kMaxKeyLength + 1);
  if (end == nullptr) return false;
  *key = {buffer_.data + position, static_cast<size_t>(static_cast<const uint8_t*>(end) - buffer_.data) - position};
  return true;
}

FlexValue FlexMap::Find(const char* key) const {
  const Bytes wanted = {reinterpret_cast<const uint8_t*>(key), std::strlen(key)};
  size_t low = 0, high = count_;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    Bytes candidate;
    if (!Key(middle, &candidate)) break;  // cannot happen: Open has read them all
    const int order = Compare(candidate, wanted);
    if (order == 0) {
      const uint8_t packed = buffer_.data[elements_ + count_ * width_ + middle];
      return ReadValue(buffer_, elements_ + middle * width_, width_, packed);
    }
    if (order < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return FlexValue();
}

}  // namespace block_sparse::format
