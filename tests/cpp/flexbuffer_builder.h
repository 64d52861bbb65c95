// Writes FlexBuffer maps for tests: whatever the reference writer may leave (any width, indirect integers), and what
// none would (out-of-range widths are a matter of mutating the result).
#ifndef TESTS_CPP_FLEXBUFFER_BUILDER_H_
#define TESTS_CPP_FLEXBUFFER_BUILDER_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace block_sparse::testing {

class FlexMapBuilder {
 public:
  FlexMapBuilder& Int(const std::string& key, int64_t value) { return Inline(key, 1, static_cast<uint64_t>(value)); }
  FlexMapBuilder& UInt(const std::string& key, uint64_t value) { return Inline(key, 2, value); }
  FlexMapBuilder& Bool(const std::string& key, bool value) { return Inline(key, 26, value ? 1 : 0); }
  FlexMapBuilder& Null(const std::string& key) { return Inline(key, 0, 0); }
  FlexMapBuilder& String(const std::string& key, const std::string& text) {
    return Outside(key, 5, std::vector<uint8_t>(text.begin(), text.end()), true);
  }
  FlexMapBuilder& Blob(const std::string& key, std::vector<uint8_t> bytes) {
    return Outside(key, 25, std::move(bytes), false);
  }
  // `width` bytes, out of line.
  FlexMapBuilder& IndirectInt(const std::string& key, int64_t value, int width) {
    Entry entry;
    entry.type = 6;
    entry.inlined = false;
    entry.width = width;
    for (int i = 0; i < width; ++i) {
      entry.bytes.push_back(static_cast<uint8_t>(static_cast<uint64_t>(value) >> (8 * i)));
    }
    entries_[key] = entry;
    return *this;
  }
  FlexMapBuilder& Remove(const std::string& key) {
    entries_.erase(key);
    return *this;
  }

  // All elements at least `width` bytes wide.
  std::vector<uint8_t> Finish(int width = 1) const {
    std::vector<uint8_t> buffer;
    while (!Write(width, &buffer)) width *= 2;
    return buffer;
  }

 private:
  struct Entry {
    int type = 0;
    bool inlined = true;
    uint64_t value = 0;
    std::vector<uint8_t> bytes;
    bool sized = false;
    bool zero_ended = false;
    int width = 1;
  };

  FlexMapBuilder& Inline(const std::string& key, int type, uint64_t value) {
    Entry entry;
    entry.type = type;
    entry.value = value;
    entries_[key] = entry;
    return *this;
  }
  FlexMapBuilder& Outside(const std::string& key, int type, std::vector<uint8_t> bytes, bool zero_ended) {
    Entry entry;
    entry.type = type;
    entry.inlined = false;
    entry.sized = true;
    entry.zero_ended = zero_ended;
    while (entry.width < 8 && (static_cast<uint64_t>(bytes.size()) >> (8 * entry.width)) != 0) entry.width *= 2;
    entry.bytes = std::move(bytes);
    entries_[key] = entry;
    return *this;
  }

  static int Log2(int width) { return width == 1 ? 0 : width == 2 ? 1 : width == 4 ? 2 : 3; }
  static void Align(std::vector<uint8_t>* buffer, int width) {
    while (buffer->size() % static_cast<size_t>(width) != 0) buffer->push_back(0);
  }
  // False where `value`, taken as signed or not, does not fit.
  static bool Append(std::vector<uint8_t>* buffer, uint64_t value, int width, bool is_signed = false) {
    for (int i = 0; i < width; ++i) buffer->push_back(static_cast<uint8_t>(value >> (8 * i)));
    if (width == 8) return true;
    if (!is_signed) return (value >> (8 * width)) == 0;
    const int64_t low = static_cast<int64_t>(value), bound = int64_t{1} << (8 * width - 1);
    return -bound <= low && low < bound;
  }

  bool Write(int width, std::vector<uint8_t>* buffer) const {
    buffer->clear();
    bool fits = true;
    std::vector<size_t> key_at, value_at;
    for (const auto& [key, entry] : entries_) {
      key_at.push_back(buffer->size());
      buffer->insert(buffer->end(), key.begin(), key.end());
      buffer->push_back(0);
      if (!entry.inlined) {
        Align(buffer, entry.width);
        if (entry.sized) Append(buffer, entry.bytes.size(), entry.width);
        value_at.push_back(buffer->size());
        buffer->insert(buffer->end(), entry.bytes.begin(), entry.bytes.end());
        if (entry.zero_ended) buffer->push_back(0);
      } else {
        value_at.push_back(0);
      }
    }
    Align(buffer, width);
    fits &= Append(buffer, entries_.size(), width);
    const size_t keys = buffer->size();
    for (size_t at : key_at) fits &= Append(buffer, buffer->size() - at, width);
    fits &= Append(buffer, buffer->size() - keys, width);
    fits &= Append(buffer, static_cast<uint64_t>(width), width);
    fits &= Append(buffer, entries_.size(), width);
    const size_t elements = buffer->size();
    size_t i = 0;
    for (const auto& [key, entry] : entries_) {
      fits &= entry.inlined ? Append(buffer, entry.value, width, entry.type == 1)
                            : Append(buffer, buffer->size() - value_at[i], width);
      ++i;
    }
    for (const auto& [key, entry] : entries_) {
      buffer->push_back(static_cast<uint8_t>(entry.type << 2 | Log2(entry.inlined ? width : entry.width)));
    }
    int root = 1;
    for (;; root *= 2) {
      std::vector<uint8_t> end = *buffer;
      Align(&end, root);
      if (!Append(&end, end.size() - elements, root)) continue;
      end.push_back(static_cast<uint8_t>(9 << 2 | Log2(width)));
      end.push_back(static_cast<uint8_t>(root));
      *buffer = end;
      return fits;
    }
  }

  std::map<std::string, Entry> entries_;
};

}  // namespace block_sparse::testing

#endif  // TESTS_CPP_FLEXBUFFER_BUILDER_H_
