#include "tflite_delegate/tools/random_weights.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "tflite_delegate/format/lowering.h"
#include "tflite_delegate/format/sparse_rows.h"

namespace block_sparse::tools {

namespace {

using format::VerticalBlocks;

// What a structure fills in: blocks with their values, or single entries.
struct Kept {
  VerticalBlocks blocks;
  std::vector<float> values;
  std::vector<int32_t> entry_row, entry_column;
};

using Place = void (*)(const StructureChoice&, const WeightShape&, double zeros, Random*, Kept*);

int32_t Groups(int32_t n, int32_t size) { return (n - 1) / size + 1; }

uint32_t Share(double zeros, int64_t n) {
  return static_cast<uint32_t>(std::llround((1.0 - zeros) * static_cast<double>(n)));
}

// A block at `row` of `column`: past the last row it holds zeros.
void AddBlock(const WeightShape& shape, int32_t row, int32_t column, Random* random, Kept* kept) {
  kept->blocks.start_row.push_back(row);
  kept->blocks.column.push_back(column);
  for (int32_t q = 0; q < kept->blocks.block; q++) {
    kept->values.push_back(row + q < shape.rows ? random->Float() : 0.0f);
  }
}

void AddEntry(int32_t row, int32_t column, Kept* kept) {
  kept->entry_row.push_back(row);
  kept->entry_column.push_back(column);
}

void PlaceUnaligned(const StructureChoice& structure, const WeightShape& shape, double zeros, Random* random,
                    Kept* kept) {
  const int32_t size = kept->blocks.block = structure.size;
  const int64_t entries = static_cast<int64_t>(shape.rows) * shape.columns();
  const uint32_t a_column = static_cast<uint32_t>(shape.rows / size);
  const uint32_t most = a_column * static_cast<uint32_t>(shape.columns());
  std::vector<uint32_t> count(static_cast<size_t>(shape.columns()));
  for (uint32_t slot : random->Choose(most, std::min(most, Share(zeros, entries) / static_cast<uint32_t>(size)))) {
    count[slot / a_column]++;
  }
  for (int32_t column = 0; column < shape.columns(); column++) {
    const uint32_t n = count[static_cast<size_t>(column)];
    const uint32_t between = static_cast<uint32_t>(shape.rows) - n * static_cast<uint32_t>(size);
    const std::vector<uint32_t> order = random->Choose(n + between, n);  // of blocks and of single zeros
    for (uint32_t i = 0; i < n; i++) {
      AddBlock(shape, static_cast<int32_t>(order[i] + i * static_cast<uint32_t>(size - 1)), column, random, kept);
    }
  }
}

void PlaceAligned(const StructureChoice& structure, const WeightShape& shape, double zeros, Random* random,
                  Kept* kept) {
  kept->blocks.block = structure.size;
  const uint32_t groups = static_cast<uint32_t>(Groups(shape.rows, structure.size));
  const uint32_t all = groups * static_cast<uint32_t>(shape.columns());
  for (uint32_t i : random->Choose(all, Share(zeros, all))) {
    AddBlock(shape, static_cast<int32_t>(i % groups) * structure.size, static_cast<int32_t>(i / groups), random, kept);
  }
}

void PlacePunched(const StructureChoice& structure, const WeightShape& shape, double zeros, Random* random,
                  Kept* kept) {
  kept->blocks.block = structure.size;
  const uint32_t across = static_cast<uint32_t>(Groups(shape.channels, structure.width));
  const uint32_t positions = static_cast<uint32_t>(shape.positions);
  const uint32_t all = static_cast<uint32_t>(Groups(shape.rows, structure.size)) * across * positions;
  // Row group by row group and position by position, so that the columns of a row group ascend.
  for (uint32_t unit : random->Choose(all, Share(zeros, all))) {
    const int32_t group = static_cast<int32_t>(unit / (positions * across));
    const int32_t position = static_cast<int32_t>(unit / across % positions);
    const int32_t first = static_cast<int32_t>(unit % across) * structure.width;
    for (int32_t c = first; c < std::min(first + structure.width, shape.channels); c++) {
      AddBlock(shape, group * structure.size, position * shape.channels + c, random, kept);
    }
  }
}

void PlaceRowColumn(const StructureChoice& structure, const WeightShape& shape, double zeros, Random* random,
                    Kept* kept) {
  // Rows and columns lose the same part each.
  const double lines = 1.0 - std::sqrt(1.0 - zeros);
  for (int32_t top = 0; top < shape.rows; top += structure.size) {
    for (int32_t left = 0; left < shape.columns(); left += structure.width) {
      const uint32_t height = static_cast<uint32_t>(std::min(structure.size, shape.rows - top));
      const uint32_t width = static_cast<uint32_t>(std::min(structure.width, shape.columns() - left));
      const std::vector<uint32_t> rows = random->Choose(height, Share(lines, height));
      for (uint32_t column : random->Choose(width, Share(lines, width))) {
        for (uint32_t row : rows) AddEntry(top + static_cast<int32_t>(row), left + static_cast<int32_t>(column), kept);
      }
    }
  }
}

void PlacePattern(const StructureChoice& structure, const WeightShape& shape, double zeros, Random* random,
                  Kept* kept) {
  // The middle and three others, of kernels that have as many positions.
  const uint32_t positions = static_cast<uint32_t>(shape.positions), middle = positions / 2;
  const uint32_t entries = std::min(4u, positions);
  std::vector<std::vector<uint32_t>> patterns(static_cast<size_t>(structure.size));
  for (std::vector<uint32_t>& pattern : patterns) {
    pattern = random->Choose(positions - 1, entries - 1);
    for (uint32_t& k : pattern) k += k >= middle;
    pattern.push_back(middle);
  }
  const uint32_t all = static_cast<uint32_t>(shape.rows) * static_cast<uint32_t>(shape.channels);
  const uint32_t kernels = std::min(all, Share(zeros, static_cast<int64_t>(all) * shape.positions) / entries);
  for (uint32_t kernel : random->Choose(all, kernels)) {
    const int32_t channel = static_cast<int32_t>(kernel) % shape.channels;
    for (uint32_t k : patterns[random->Below(static_cast<uint32_t>(structure.size))]) {
      AddEntry(static_cast<int32_t>(kernel) / shape.channels, static_cast<int32_t>(k) * shape.channels + channel, kept);
    }
  }
}

struct Structure {
  const char* name;
  bool two_sizes;
  int32_t least, most;  // of the first
  Place place;
};

const Structure kStructures[] = {
    {"unaligned_block", false, 2, 64, PlaceUnaligned}, {"aligned_block", false, 2, 64, PlaceAligned},
    {"block_punched", true, 1, 64, PlacePunched},      {"block_row_column", true, 1, 1 << 16, PlaceRowColumn},
    {"pattern", false, 1, 255, PlacePattern},
};

// All of `text` as a number from 1 to 2^16; 0 if it is none.
int32_t Number(const std::string& text) {
  int32_t value = 0;
  for (char c : text) {
    if (c < '0' || c > '9' || value > 1 << 16) return 0;
    value = value * 10 + (c - '0');
  }
  return value > 1 << 16 ? 0 : value;
}

}  // namespace

bool ParseStructure(const std::string& text, StructureChoice* choice, std::string* error) {
  *choice = StructureChoice();
  if (text == "dense") return true;
  const size_t colon = std::min(text.find(':'), text.size());
  choice->name = text.substr(0, colon);
  for (const Structure& structure : kStructures) {
    if (choice->name != structure.name) continue;
    const std::string sizes = colon < text.size() ? text.substr(colon + 1) : "";
    const size_t x = std::min(sizes.find('x'), sizes.size());
    choice->size = Number(sizes.substr(0, x));
    choice->width = x < sizes.size() ? Number(sizes.substr(x + 1)) : 0;
    if (choice->size >= structure.least && choice->size <= structure.most &&
        (structure.two_sizes ? choice->width > 0 : x == sizes.size())) {
      return true;
    }
    *error = "structure is \"" + text + "\"; expected " + structure.name + ":" + (structure.two_sizes ? "AxB" : "A") +
             " with A from " + std::to_string(structure.least) + " to " + std::to_string(structure.most);
    return false;
  }
  *error = "structure is \"" + text + "\"; expected dense";
  for (const Structure& structure : kStructures) *error += std::string(", ") + structure.name;
  return false;
}

uint32_t Random::Below(uint32_t n) {
  state_ ^= state_ << 13;
  state_ ^= state_ >> 7;
  state_ ^= state_ << 17;
  return static_cast<uint32_t>((state_ >> 32) * n >> 32);
}

float Random::Float() { return static_cast<float>(static_cast<int32_t>(Below(1 << 25)) - (1 << 24)) / (1 << 24); }

std::vector<float> Random::Floats(size_t count) {
  std::vector<float> values(count);
  for (float& value : values) value = Float();
  return values;
}

std::vector<uint32_t> Random::Choose(uint32_t n, uint32_t count) {
  // Each number is taken with the probability that leaves the rest enough to choose from.
  std::vector<uint32_t> chosen;
  chosen.reserve(count);
  for (uint32_t i = 0; i < n && count > 0; i++) {
    if (Below(n - i) >= count) continue;
    chosen.push_back(i);
    count--;
  }
  return chosen;
}

LoweredMatrix RandomWeights(const StructureChoice& choice, const WeightShape& shape, double zeros, Random* random) {
  LoweredMatrix matrix;
  Kept kept;
  for (const Structure& structure : kStructures) {
    if (choice.name == structure.name) structure.place(choice, shape, zeros, random, &kept);
  }
  if (kept.entry_row.empty() && kept.blocks.block > 1) {
    format::LowerBlocks(shape.rows, shape.columns(), std::move(kept.blocks), kept.values.data(), &matrix);
    matrix.Keep(std::move(kept.values));
    return matrix;
  }
  // As the reader does it: rows of their own may share columns with others.
  if (kept.entry_row.empty()) {
    kept.entry_row = kept.blocks.start_row;
    kept.entry_column = kept.blocks.column;
  }
  kept.values = random->Floats(kept.entry_row.size());
  format::LowerSparseRows(
      format::SortEntries(shape.rows, shape.columns(), kept.entry_row, kept.entry_column, kept.values.data()), {},
      &matrix);
  return matrix;
}

}  // namespace block_sparse::tools
