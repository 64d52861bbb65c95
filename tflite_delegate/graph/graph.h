// The internal graph of one claimed stretch: built from the runtime's nodes by ops/, prepared once, run many times.
#ifndef TFLITE_DELEGATE_GRAPH_GRAPH_H_
#define TFLITE_DELEGATE_GRAPH_GRAPH_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tflite_delegate/graph/op.h"
#include "tflite_delegate/graph/value.h"

namespace block_sparse {
namespace graph {

class Graph {
 public:
  Graph() = default;
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // --- Building ---
  // A value that an op will produce. Planar if it is 4-D with more than one pixel, unless `interleaved` is asked for.
  int AddValue(const Dims& dims, bool interleaved = false);
  int AddConstant(const Dims& dims, const float* data);
  // A value that the caller supplies, interleaved.
  int AddInput(const Dims& dims);
  void AddOp(std::unique_ptr<Op> op) { ops_.push_back(std::move(op)); }
  // The same value in the other layout; adds a transposition once. Where H * W = 1 the two layouts are one.
  int Planar(int value);
  int Interleaved(int value);
  // Marks a value as result number outputs().size(); makes it interleaved.
  void AddOutput(int value);

  const Value& value(int id) const { return values_[id]; }
  Value& value(int id) { return values_[id]; }

  // --- Preparing ---
  // Fuses, plans layout and memory, lets the ops pack. The graph cannot be changed afterwards.
  bool Prepare(const kernels::KernelTable& kernels, int num_threads, std::string* error);

  // --- Running ---
  // Pointers in the order of AddInput and AddOutput; they may change from run to run.
  void Run(const float* const* inputs, float* const* outputs, ThreadPool* pool);

  size_t input_count() const { return inputs_.size(); }
  size_t output_count() const { return outputs_.size(); }
  const std::vector<std::unique_ptr<Op>>& ops() const { return ops_; }
  size_t arena_bytes() const { return arena_floats_ * sizeof(float); }

 private:
  void RemoveUnusedOps();
  void InsertZeroBorders();
  bool PlanMemory();

  std::vector<Value> values_;
  std::vector<std::unique_ptr<Op>> ops_;
  std::vector<int> inputs_, outputs_;
  std::vector<std::pair<int, int>> transposed_;  // value, the same value in the other layout

  std::vector<int> alias_;           // value -> value whose memory it uses, or -1
  std::vector<int64_t> offset_;      // value -> floats from the arena's start, or -1 when outside it
  std::vector<float*> data_;         // by value id, for RunContext
  std::vector<size_t> scratch_at_;   // by op
  float* arena_ = nullptr;
  size_t arena_floats_ = 0;
};

}  // namespace graph
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_GRAPH_GRAPH_H_
