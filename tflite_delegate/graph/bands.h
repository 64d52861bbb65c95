// Depth-first execution: where activations are too large for the second-level cache, a group of successive ops runs
// band by band of rows, so that a consumer finds its producer's rows still in the cache. A value that only lives inside
// its group is not even kept whole: a window of its rows slides down the image.
//
// With several threads each takes a share of the rows through the whole group, in windows of its own, so that they meet
// only at the group's end. Rows that two shares need are made twice.
#ifndef TFLITE_DELEGATE_GRAPH_BANDS_H_
#define TFLITE_DELEGATE_GRAPH_BANDS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "tflite_delegate/graph/op.h"

namespace block_sparse {
namespace graph {

// In bytes that an op reads and writes.
struct BandLimits {
  // In one band: half a second-level cache of a megabyte, as the windows of the whole group go round in it.
  int64_t band = 512 << 10;
  // An op that touches less is left whole, because a band costs a call and reads the weights once more. Measured on
  // MobileNetV1, V2, V3-Large and EfficientNet-Lite0 with bands of 256 to 1024 KiB and limits of 1200 KiB to never.
  int64_t large = 1536 << 10;
  // An op that computes little loses little by reading from the last-level cache, and made at once its output is in the
  // second-level cache for what follows: in bands, ResNet-50's pooling, 4 MiB with its output, cost the network 1 to
  // 2 %. VGG-16's, of 8 and 15 MiB, won it 2 to 3 %.
  int64_t large_little = 5 << 20;
  // Threads take shares of a group's rows where one of its ops touches this much; less does not make up for the rows
  // that are made twice and for shares that are not equal. Two threads ran VGG-16 (25 MiB) 1.09 times as fast with
  // shares, MobileNetV1 and V2 of 448x448 pixels 1.16 and 1.23, of 320x320 0.98 and 1.05 (10 and 11 MiB), and of
  // 224x224 (5 MiB), where the layers around them share rows as well, 0.95 and 1.0.
  int64_t shared = 10 << 20;
};

// One turn of one op: rows [begin, end) of its output, or the whole op where end < 0. With op < 0: the window of
// `value` slides down so that it begins at row `begin`; its rows up to `end` are kept.
struct Step {
  int op;
  int value;
  int32_t begin, end;
};

// Ops [first, last]. One share: its steps, in each of which all threads may work. Several: the steps of each, in order,
// while the others are done.
struct Group {
  int first, last;
  std::vector<std::vector<Step>> shares;
};

struct Bands {
  std::vector<Group> groups;    // one after the other
  std::vector<int32_t> window;  // rows that a value's windows have room for; 0: the whole image
};

// Cuts the op list into groups and says in which order to run them. The planes of all values are set, for whole images.
// `pinned` values are kept whole. What is computed does not depend on the number of threads, to the bit.
Bands PlanBands(const std::vector<std::unique_ptr<Op>>& ops, const std::vector<Value>& values,
                const std::vector<bool>& pinned, int num_threads, const BandLimits& limits = BandLimits());

}  // namespace graph
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_GRAPH_BANDS_H_
