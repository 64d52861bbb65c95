#include "tflite_delegate/format/flexbuffer.h"

#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/flexbuffer_builder.h"
#include "tests/cpp/format_testing.h"

namespace block_sparse::format {
namespace {

#include "tests/cpp/flexbuffer_fixtures.inc"

using testing::FlexMapBuilder;
using Kind = FlexValue::Kind;

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
constexpr int64_t kMin = std::numeric_limits<int64_t>::min();

std::string Text(Bytes bytes) { return std::string(reinterpret_cast<const char*>(bytes.data), bytes.size); }

class EveryType : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(map_.Open(kEveryType, sizeof(kEveryType), &error_)) << error_; }
  int64_t Int(const std::string& key) {
    const FlexValue value = map_.Find(key.c_str());
    EXPECT_EQ(value.kind, Kind::kInt) << key;
    return value.integer;
  }
  FlexMap map_;
  std::string error_;
};

TEST_F(EveryType, SignedIntegersOfAllWidths) {
  for (int64_t value :
       {int64_t{-1}, int64_t{-128}, int64_t{127}, int64_t{-32768}, (int64_t{1} << 31) - 1, kMin, kMax}) {
    EXPECT_EQ(Int("int " + std::to_string(value)), value);
    EXPECT_EQ(Int("indirect int " + std::to_string(value)), value);
  }
  for (int width : {1, 2, 4, 8}) EXPECT_EQ(Int("wide " + std::to_string(width)), -3);
}

TEST_F(EveryType, UnsignedIntegersSaturate) {
  for (uint64_t value : {uint64_t{255}, uint64_t{65535}, (uint64_t{1} << 32) - 1}) {
    EXPECT_EQ(Int("uint " + std::to_string(value)), static_cast<int64_t>(value));
    EXPECT_EQ(Int("indirect uint " + std::to_string(value)), static_cast<int64_t>(value));
  }
  for (uint64_t value : {uint64_t{1} << 63, ~uint64_t{0}}) {
    EXPECT_EQ(Int("uint " + std::to_string(value)), kMax);
    EXPECT_EQ(Int("indirect uint " + std::to_string(value)), kMax);
  }
}

TEST_F(EveryType, StringsAndBlobs) {
  EXPECT_EQ(map_.Find("utf8").kind, Kind::kString);
  EXPECT_EQ(Text(map_.Find("utf8").bytes), "gr\xc3\xbc\xc3\x9f");
  EXPECT_EQ(map_.Find("empty string").kind, Kind::kString);
  EXPECT_EQ(map_.Find("empty string").bytes.size, 0u);
  EXPECT_EQ(map_.Find("blob").kind, Kind::kBlob);
  EXPECT_EQ(Text(map_.Find("blob").bytes), std::string("\x00\xff\x80", 3));
  EXPECT_EQ(map_.Find("empty blob").kind, Kind::kBlob);
  EXPECT_EQ(map_.Find("empty blob").bytes.size, 0u);
  const FlexValue blob = map_.Find("long blob");
  ASSERT_EQ(blob.kind, Kind::kBlob);
  ASSERT_EQ(blob.bytes.size, 300u);
  for (size_t i = 0; i < 300; ++i) EXPECT_EQ(blob.bytes.data[i], i % 251);
}

TEST_F(EveryType, Bools) {
  EXPECT_EQ(map_.Find("yes").kind, Kind::kBool);
  EXPECT_EQ(map_.Find("yes").integer, 1);
  EXPECT_EQ(map_.Find("no").kind, Kind::kBool);
  EXPECT_EQ(map_.Find("no").integer, 0);
}

TEST_F(EveryType, OtherTypesAreNamed) {
  const struct {
    const char *key, *name;
  } cases[] = {{"float", "a floating-point number"},
               {"double", "a floating-point number"},
               {"indirect float", "a floating-point number"},
               {"null", "null"},
               {"vector", "a vector"},
               {"typed vector", "a vector"},
               {"bools", "a vector"},
               {"fixed vector", "a vector"},
               {"map", "a map"}};
  for (const auto& c : cases) {
    EXPECT_EQ(map_.Find(c.key).kind, Kind::kOther) << c.key;
    EXPECT_STREQ(map_.Find(c.key).type_name, c.name) << c.key;
  }
}

TEST_F(EveryType, AbsentKeys) {
  for (const char* key : {"", "blo", "blobs", "zzz", "A", "\xff"}) {
    EXPECT_EQ(map_.Find(key).kind, Kind::kAbsent) << key;
  }
}

TEST(FlexMap, ReferenceWriterAtEachWidth) {
  const struct {
    const uint8_t* data;
    size_t size;
  } cases[] = {{kUnalignedConvolution8, sizeof(kUnalignedConvolution8)},
               {kUnalignedConvolution16, sizeof(kUnalignedConvolution16)},
               {kUnalignedConvolution32, sizeof(kUnalignedConvolution32)},
               {kUnalignedConvolution64, sizeof(kUnalignedConvolution64)}};
  for (const auto& c : cases) {
    FlexMap map;
    std::string error;
    ASSERT_TRUE(map.Open(c.data, c.size, &error)) << error;
    EXPECT_EQ(map.size(), 14u);
    EXPECT_EQ(map.Find("rows").integer, 5);
    EXPECT_EQ(map.Find("version").integer, 1);
    EXPECT_EQ(Text(map.Find("structure").bytes), "unaligned_block");
    EXPECT_EQ(Text(map.Find("positions").bytes), "\x03\x01\x4f");
  }
}

TEST(FlexMap, EmptyMap) {
  FlexMap map;
  std::string error;
  ASSERT_TRUE(map.Open(kEmptyMap, sizeof(kEmptyMap), &error)) << error;
  EXPECT_EQ(map.size(), 0u);
  EXPECT_EQ(map.Find("version").kind, Kind::kAbsent);
}

TEST(FlexMap, RefusesOtherRootsAndRubbish) {
  FlexMap map;
  std::string error;
  EXPECT_FALSE(map.Open(kVector, sizeof(kVector), &error));
  EXPECT_EQ(error, "root is a vector, expected a FlexBuffer map");
  EXPECT_FALSE(map.Open(kInteger, sizeof(kInteger), &error));
  EXPECT_EQ(error, "root is an integer, expected a FlexBuffer map");
  EXPECT_FALSE(map.Open(nullptr, 0, &error));
  EXPECT_EQ(error, "missing");
  const uint8_t zeros[16] = {};
  for (size_t size = 1; size <= sizeof(zeros); ++size) {
    EXPECT_FALSE(map.Open(zeros, size, &error));
    EXPECT_EQ(error, "not a FlexBuffer, or truncated");
  }
}

// The same map in all widths, small and large, built apart from the reference writer.
TEST(FlexMap, LargeBlobsAndWideElements) {
  for (size_t length : {0u, 1u, 255u, 256u, 65535u, 65536u, 70001u}) {
    std::vector<uint8_t> bytes(length);
    for (size_t i = 0; i < length; ++i) bytes[i] = static_cast<uint8_t>(i * 7);
    for (int width : {1, 2, 4, 8}) {
      const std::vector<uint8_t> buffer = FlexMapBuilder()
                                              .Blob("positions", bytes)
                                              .Int("a", -5)
                                              .UInt("zz", 200)
                                              .IndirectInt("m", 1000, 4)
                                              .Bool("b", true)
                                              .Finish(width);
      FlexMap map;
      std::string error;
      ASSERT_TRUE(map.Open(buffer.data(), buffer.size(), &error)) << error << length << " " << width;
      const FlexValue blob = map.Find("positions");
      ASSERT_EQ(blob.kind, Kind::kBlob);
      ASSERT_EQ(blob.bytes.size, length);
      if (length != 0) {
        EXPECT_EQ(std::memcmp(blob.bytes.data, bytes.data(), length), 0);
      }
      EXPECT_EQ(map.Find("a").integer, -5);
      EXPECT_EQ(map.Find("zz").integer, 200);
      EXPECT_EQ(map.Find("m").integer, 1000);
      EXPECT_EQ(map.Find("b").integer, 1);
    }
  }
}

TEST(FlexMap, RefusesRepeatedAndUnsortedKeys) {
  const std::vector<uint8_t> good = FlexMapBuilder().Int("ka", 1).Int("kb", 2).Finish();
  FlexMap map;
  std::string error;
  ASSERT_TRUE(map.Open(good.data(), good.size(), &error)) << error;
  for (char first : {'b', 'c'}) {
    std::vector<uint8_t> bad = good;
    ASSERT_EQ(bad[1], 'a');
    bad[1] = static_cast<uint8_t>(first);
    EXPECT_FALSE(map.Open(bad.data(), bad.size(), &error));
    EXPECT_EQ(error, "keys of the map do not ascend");
  }
}

TEST(FlexMap, LimitOfKeyLength) {
  for (size_t length : {1u, 255u, 256u, 300u}) {
    const std::vector<uint8_t> buffer = FlexMapBuilder().Int(std::string(length, 'k'), 7).Finish();
    FlexMap map;
    std::string error;
    EXPECT_EQ(map.Open(buffer.data(), buffer.size(), &error), length <= 255) << length;
  }
}

TEST(FlexMap, BoolThatIsNeither) {
  std::vector<uint8_t> buffer = FlexMapBuilder().Bool("b", true).Finish();
  FlexMap map;
  std::string error;
  // From the end: root width, root type, root offset, the element's type, the element.
  buffer[buffer.size() - 5] = 2;
  ASSERT_TRUE(map.Open(buffer.data(), buffer.size(), &error)) << error;
  EXPECT_EQ(map.Find("b").kind, Kind::kBroken);
}

// Reads all that can be read of `bytes`, which stand alone in an allocation so that a sanitizer sees each step outside.
void ReadAll(const std::vector<uint8_t>& bytes) {
  const std::unique_ptr<uint8_t[]> copy(new uint8_t[bytes.size()]);
  if (!bytes.empty()) std::memcpy(copy.get(), bytes.data(), bytes.size());
  FlexMap map;
  std::string error;
  if (!map.Open(copy.get(), bytes.size(), &error)) {
    EXPECT_FALSE(error.empty());
    return;
  }
  unsigned sum = 0;
  for (const char* key : {"positions", "rows", "structure", "utf8", "blob", "long blob", "yes", "float", "map", "null",
                          "wide 1", "wide 8", "indirect int -1", "uint 65535", "block", ""}) {
    const FlexValue value = map.Find(key);
    if (value.bytes.size != 0) {
      ASSERT_GE(value.bytes.data, copy.get());
      ASSERT_LE(value.bytes.size, bytes.size());
      ASSERT_LE(static_cast<size_t>(value.bytes.data - copy.get()), bytes.size() - value.bytes.size);
    }
    for (size_t i = 0; i < value.bytes.size; ++i) sum += value.bytes.data[i];
  }
  EXPECT_GE(sum, 0u);
}

template <size_t N>
std::vector<uint8_t> Vector(const uint8_t (&bytes)[N]) {
  return std::vector<uint8_t>(bytes, bytes + N);
}

TEST(FlexMapFuzz, EveryTruncationAndEveryByte) {
  for (const std::vector<uint8_t>& good : {Vector(kEveryType), Vector(kUnalignedConvolution8),
                                           Vector(kUnalignedConvolution64), Vector(kEmptyMap), Vector(kVector)}) {
    for (size_t size = 0; size < good.size(); ++size) {
      ReadAll(std::vector<uint8_t>(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size)));
      ReadAll(std::vector<uint8_t>(good.begin() + static_cast<std::ptrdiff_t>(size), good.end()));
    }
    std::vector<uint8_t> bad = good;
    for (size_t i = 0; i < good.size(); ++i) {
      // All values where structure lies (the end), a few in the rest.
      const int step = i + 100 < good.size() || testing::kEmulated ? 15 : 1;
      for (int delta = 1; delta < 256; delta += step) {
        bad[i] = static_cast<uint8_t>(good[i] + delta);
        ReadAll(bad);
      }
      bad[i] = good[i];
    }
  }
}

TEST(FlexMapFuzz, ManyBytesAtOnceAndNoise) {
  std::mt19937 random(20240607);
  const std::vector<uint8_t> good = Vector(kUnalignedConvolution16);
  for (int round = 0; round < 4000; ++round) {
    std::vector<uint8_t> bad = good;
    const int changes = 1 + static_cast<int>(random() % 8);
    for (int c = 0; c < changes; ++c) bad[random() % bad.size()] = static_cast<uint8_t>(random());
    ReadAll(bad);
    std::vector<uint8_t> noise(random() % 64);
    for (uint8_t& byte : noise) byte = static_cast<uint8_t>(random());
    if (noise.size() >= 3) {
      noise[noise.size() - 1] = static_cast<uint8_t>(1 << random() % 4);
      noise[noise.size() - 2] = static_cast<uint8_t>(9 << 2 | random() % 4);
    }
    ReadAll(noise);
  }
}

}  // namespace
}  // namespace block_sparse::format
