// The internal graph of one claimed stretch: built from the runtime's nodes by ops/, prepared once, run many times.
#ifndef TFLITE_DELEGATE_GRAPH_GRAPH_H_
#define TFLITE_DELEGATE_GRAPH_GRAPH_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tflite_delegate/graph/bands.h"
#include "tflite_delegate/graph/memory.h"
#include "tflite_delegate/graph/op.h"
#include "tflite_delegate/graph/tuning.h"
#include "tflite_delegate/graph/value.h"

namespace block_sparse {
namespace graph {

class Graph {
 public:
  Graph() = default;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // --- Building ---
  // A value that an op will produce. Planar if it is 4-D with more than one pixel, unless `interleaved` is asked for.
  int AddValue(const Dims& dims, bool interleaved = false);
  // Planar whatever its size, for an op that can write nothing else; follow it with Interleaved().
  int AddPlanarValue(const Dims& dims);
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

  // --- Preparing ---
  // Fuses, plans layout and memory, lets the ops pack. The graph cannot be changed afterwards.
  // With `tuning`, ops take the tiling that it knows for them.
  bool Prepare(const kernels::KernelTable& kernels, int num_threads, std::string* error,
               const Tuning* tuning = nullptr);
  // Said before Prepare.
  void SetBandLimits(const BandLimits& limits) { band_limits_ = limits; }
  // Measures the tilings of the ops that Prepare's `tuning` knew nothing of, sets the fastest and notes them there. The
  // whole graph is run each time, so that what is in the caches is what will be.
  bool NeedsTuning() const;
  bool Tune(const kernels::KernelTable& kernels, ThreadPool* pool, Tuning* tuning, std::string* error);

  // --- Running ---
  // Pointers in the order of AddInput and AddOutput; they may change from run to run.
  void Run(const float* const* inputs, float* const* outputs, ThreadPool* pool);

  // Times every op of every run from now on; Profile gives a line an op: mean time and what it did.
  void EnableProfile(bool enable);
  std::vector<std::string> Profile() const;

  size_t input_count() const { return inputs_.size(); }
  size_t output_count() const { return outputs_.size(); }
  const std::vector<std::unique_ptr<Op>>& ops() const { return ops_; }
  size_t arena_bytes() const { return arena_.floats() * sizeof(float); }

 private:
  bool PrepareOp(Op* op, const kernels::KernelTable& kernels, int num_threads, std::string* error) const;
  void RemoveUnusedOps();
  void InsertZeroBorders();
  void AliasConcatenations();
  void PlanBandsAndWindows(int num_threads);
  void RunSteps(const std::vector<Step>& steps, size_t share, ThreadPool* pool);
  void Slide(const Step& step, size_t share, ThreadPool* pool);
  bool PlanMemory();
  int64_t Nanoseconds(int op) const;  // in all profiled runs; of shares, their mean
  int Root(int value) const;          // the value in whose memory it lies
  size_t Floats(int value) const;     // memory it takes

  std::vector<Value> values_;
  std::vector<std::unique_ptr<Op>> ops_;
  std::vector<int> inputs_, outputs_;
  std::vector<std::pair<int, int>> transposed_;  // value, the same value in the other layout

  std::vector<std::string> to_tune_;  // by op: its kind, if its fastest tiling is not known
  BandLimits band_limits_;
  Bands bands_;
  std::vector<int> alias_;         // value -> value in whose memory it lies, or -1
  std::vector<int64_t> alias_at_;  // floats from there
  // What one share of a group works with; the first of them is what runs whole works with too.
  struct Share {
    std::vector<float*> window;       // by value: where its window begins, or null
    std::vector<float*> data;         // by value; outside the arena only while Run
    std::vector<float*> scratch;      // by op
    std::vector<int64_t> profile_ns;  // by op; empty: off
  };
  std::vector<Share> shares_;
  ThreadPool alone_{1};
  int64_t profiled_runs_ = 0;
  Memory arena_;
};

}  // namespace graph
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_GRAPH_GRAPH_H_
