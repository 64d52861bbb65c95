#include "gtest/gtest.h"
#include "tflite_delegate/format/lowered.h"

namespace block_sparse {
namespace {

TEST(LoweredMatrix, StartsEmpty) { EXPECT_EQ(LoweredMatrix().rows, 0); }

}  // namespace
}  // namespace block_sparse
