// Depth-first execution: where activations are too large for the second-level cache, a group of successive ops runs
// band by band of rows, so that a consumer finds its producer's rows still in the cache. A value that only lives inside
// its group is not even kept whole: a window of its rows slides down the image.
#ifndef TFLITE_DELEGATE_GRAPH_BANDS_H_
#define TFLITE_DELEGATE_GRAPH_BANDS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "tflite_delegate/graph/op.h"

namespace block_sparse {
namespace graph {

// Ops [first, last] that run in `bands` turns; one op alone has one band.
struct Group {
  int first, last, bands;
};

// One turn of one op: rows [begin, end) of its output, or the whole op where end < 0. With op < 0: the window of
// `value` slides down so that it begins at row `begin`; its rows up to `end` are kept.
struct Step {
  int op;
  int value;
  int32_t begin, end;
};

struct Bands {
  std::vector<Group> groups;
  std::vector<Step> steps;
  std::vector<int32_t> window;  // rows that a value's window has room for; 0: the whole image
};

// Cuts the op list into groups and says in which order to run them. The planes of all values are set, for whole images.
// `pinned` values are kept whole. More than one thread: every op runs whole.
Bands PlanBands(const std::vector<std::unique_ptr<Op>>& ops, const std::vector<Value>& values,
                const std::vector<bool>& pinned, int num_threads);

}  // namespace graph
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_GRAPH_BANDS_H_
