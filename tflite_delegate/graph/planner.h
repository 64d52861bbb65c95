// Chooses the planes of planar values and the place of every value in memory.
#ifndef TFLITE_DELEGATE_GRAPH_PLANNER_H_
#define TFLITE_DELEGATE_GRAPH_PLANNER_H_

#include <cstdint>
#include <vector>

#include "tflite_delegate/graph/value.h"
#include "tflite_delegate/kernels/kernels.h"

namespace block_sparse {
namespace graph {

// Collects what ops need of planes. Values joined by SamePlanes form a class: they have equal height and width and get
// the same row, origin and plane, so an op may treat a plane as one run of pixels. Interleaved values are ignored.
class Planner {
 public:
  // For ops that will run on `kernels`.
  Planner(std::vector<Value>* values, const kernels::KernelTable& kernels);

  const kernels::KernelTable& kernels() const { return kernels_; }

  const Value& value(int id) const { return values_[id]; }

  void SamePlanes(int a, int b);
  // Rows of this value must be at least `row` floats apart.
  void MinRow(int value, int32_t row);
  // What an op gains, or loses if negative, in multiply-adds, where this value's rows are whole cache lines. They are
  // if all ops together gain.
  void WeighWholeLines(int value, double gain);
  // Zeros are to be found around this value's image. The row is widened by max(left, right): the zeros right of a row
  // are the zeros left of the next one.
  void ZeroBorder(int value, const Border& border);

  // So many rows above and below this value's image can be read, whatever they hold.
  void Room(int value, int32_t above, int32_t below);

  // Sets the planes of every planar value. False if a plane would be too large to address.
  bool SetPlanes();

  // Floats from plane to plane where a plane holds a run of pixels and what is read around it.
  static int64_t PlaneFloats(const Planes& planes, int64_t run, const Border& reach);

 private:
  struct Class {
    int32_t min_row = 0;
    double whole_lines = 0;  // gain
    Border reach;            // largest border of any value in the class, and room for more
  };
  int Root(int value);

  std::vector<Value>& values_;
  const kernels::KernelTable& kernels_;
  std::vector<int> parent_;
  std::vector<Class> classes_;
};

}  // namespace graph
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_GRAPH_PLANNER_H_
