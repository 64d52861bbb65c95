// An operation of the internal graph: prepared once, run many times.
#ifndef TFLITE_DELEGATE_GRAPH_OP_H_
#define TFLITE_DELEGATE_GRAPH_OP_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tflite_delegate/graph/thread_pool.h"
#include "tflite_delegate/graph/value.h"
#include "tflite_delegate/kernels/kernels.h"

namespace block_sparse {
namespace graph {

class Graph;
class Planner;

// What an op may use while it runs. Pointers are to the first byte of the value; for planar values see Planes.
struct RunContext {
  float* const* data;  // by value id
  float* scratch;      // the op's own, as large as it asked for, 64-byte aligned; contents undefined
  ThreadPool* pool;
};

// Every down-th row's every across-th pixel, from the first on.
struct Pixels {
  int32_t down = 1, across = 1;
  bool operator==(const Pixels& other) const { return down == other.down && across == other.across; }
};

class Op {
 public:
  Op(std::vector<int> op_inputs, int op_output) : inputs(std::move(op_inputs)), output(op_output) {}
  virtual ~Op() = default;
  Op(const Op&) = delete;
  Op& operator=(const Op&) = delete;

  // A name for logs and profiles, such as "conv".
  virtual const char* name() const = 0;

  // Says what the op needs of its values' planes (Planner::SamePlanes and the like). Called once, in order, before any
  // planes are set. Ops that take any planes say nothing.
  virtual void Constrain(Planner*) {}

  // The output may take the place of inputs[i] in memory when nobody reads that input later: -1 if it must not.
  // Only meaningful where both have the same planes (Planner::SamePlanes) or are both interleaved and of equal size.
  virtual int InPlaceInput() const { return -1; }

  // Everything that depends on planes and shapes and needs doing once: packing weights, choosing tiles. The planes of
  // all values are set. Returns false if memory or a size limit forbids it.
  virtual bool Prepare(const Graph& graph, const kernels::KernelTable& kernels, int num_threads) = 0;

  // --- Ways of computing the same, of which the fastest depends on the CPU; see Graph::Tune. ---
  virtual int Tilings() const { return 1; }
  // The same for ops of which the same tiling is likely the fastest. Asked after Constrain.
  virtual std::string TilingKey(const Graph&) const { return name(); }
  // One of Tilings() before Prepare, which may be called again after another if `again`. Without it: the first.
  virtual void SetTiling(int /*tiling*/, bool /*again*/) {}

  // Floats of scratch memory Run needs, with any tiling; asked after Prepare.
  virtual size_t ScratchFloats() const { return 0; }

  // No allocation, no failure.
  virtual void Run(const RunContext& context) const = 0;

  // --- Fusion: what an op is, and what it can take in. ---
  // inputs[0] + inputs[1] of equal shapes, then a clamp.
  virtual bool IsAdd(float* /*low*/, float* /*high*/) const { return false; }
  // A clamp and nothing else.
  virtual bool IsClamp(float* /*low*/, float* /*high*/) const { return false; }
  // inputs[i] + a constant number a channel, the value `*shift`, then a clamp: i, else -1.
  virtual int ShiftsInput(int* /*shift*/, float* /*low*/, float* /*high*/) const { return -1; }
  // Zeros around inputs[0]'s image and nothing else.
  virtual bool IsZeroPad(Border* /*border*/) const { return false; }
  // Take over an addition of `residual` to the output followed by a clamp; the same of the constant `shift`, a number a
  // channel; a clamp; a zero border around inputs[0] (which the graph then replaces by the unpadded image). False: it
  // stays as it is.
  virtual bool FuseResidual(int /*residual*/, float /*low*/, float /*high*/) { return false; }
  virtual bool FuseShift(int /*shift*/, float /*low*/, float /*high*/) { return false; }
  virtual bool FuseClamp(float /*low*/, float /*high*/) { return false; }
  virtual bool FuseZeroPad(const Border& /*border*/) { return false; }
  // All inputs stand one after the other along the channels of the planar output: they may then be produced there.
  virtual bool ConcatenatesChannels() const { return false; }

  // --- Pixels that nobody reads (unread_pixels.h). Asked before Constrain. ---
  // Those of `value`, one of its inputs, that it reads. Fewer than all only of inputs[0].
  virtual Pixels Reads(int /*value*/) const { return Pixels(); }
  // After that: inputs[0] will be an image of these pixels alone.
  virtual void ReadAll() {}
  // Makes these pixels of the output only, from those of inputs[1] and up. False: it makes all.
  virtual bool MakeOnly(const Pixels& /*pixels*/) { return false; }

  // --- Running row by row (bands.h), for planar outputs of one image. ---
  // Rows of inputs[i] from which output rows [begin, end) are made, clipped to the image. False: it runs whole only.
  // Asked after Constrain, before Prepare, and so is WeightBytes.
  virtual bool InputRows(size_t /*i*/, int32_t /*begin*/, int32_t /*end*/, int32_t* /*in_begin*/,
                         int32_t* /*in_end*/) const {
    return false;
  }
  // Writes output rows [begin, end). It may begin with the first pixel of the cache line that row `begin` starts in, so
  // that what precedes it is made and read again, with anything between the rows; and it may write anything after
  // `end`.
  virtual void RunRows(const RunContext& /*context*/, int32_t /*begin*/, int32_t /*end*/) const {}
  // Said before Prepare: no run will be of more rows than these.
  virtual void SetMostRows(int32_t /*rows*/) {}
  // Said before Prepare of an op that runs in bands, or would with one thread: the rows after the last of each run that
  // it has then. Where sums round otherwise in other runs, these keep the bits independent of the number of threads.
  virtual void SetRuns(const std::vector<int32_t>& /*ends*/) {}
  // Whether, after that, a run may end and another begin between rows `row` - 1 and `row` of the output without
  // changing a bit of either. Not asked of the image's top and bottom.
  virtual bool MayCut(int32_t /*row*/) const { return true; }
  // Whether the runs on either side of such a cut may be at work at the same time: the upper one writes nothing from
  // `row` on, the lower one nothing before it. Asked when the planes are set.
  virtual bool CutsClean(int32_t /*row*/, const Planes& /*output*/) const { return false; }
  // Its time is that of reading and writing.
  virtual bool ComputesLittle() const { return false; }
  // Weights that every RunRows reads through, in bytes.
  virtual size_t WeightBytes() const { return 0; }

  std::vector<int> inputs;  // value ids; -1 for an absent optional one
  int output;
};

}  // namespace graph
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_GRAPH_OP_H_
