// Weights of any structure at random places, lowered by the code that lowers those of a model.
#ifndef TFLITE_DELEGATE_TOOLS_RANDOM_WEIGHTS_H_
#define TFLITE_DELEGATE_TOOLS_RANDOM_WEIGHTS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tflite_delegate/format/lowered.h"

namespace block_sparse::tools {

// A layer's weights as docs/format.md has them: rows x (positions * channels).
struct WeightShape {
  int32_t rows = 0;
  int32_t positions = 1;  // kernel height * kernel width
  int32_t channels = 0;

  int32_t columns() const { return positions * channels; }
};

// A structure with its parameters, such as "unaligned_block:4" or "block_punched:8x4"; "dense" has none.
struct StructureChoice {
  std::string name = "dense";
  int32_t size = 0;   // rows of a block; patterns in the set
  int32_t width = 0;  // channels or columns of a block
};

// False, with what is expected in *error, if it is not the name of a structure with parameters in its range.
bool ParseStructure(const std::string& text, StructureChoice* choice, std::string* error);

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u + 1) {}
  uint32_t Below(uint32_t n);
  float Float();  // in [-1, 1)
  std::vector<float> Floats(size_t count);
  // `count` of the numbers below n, in ascending order.
  std::vector<uint32_t> Choose(uint32_t n, uint32_t count);

 private:
  uint64_t state_;
};

// As near to `zeros` as whole blocks allow.
LoweredMatrix RandomWeights(const StructureChoice& structure, const WeightShape& shape, double zeros, Random* random);

}  // namespace block_sparse::tools

#endif  // TFLITE_DELEGATE_TOOLS_RANDOM_WEIGHTS_H_
