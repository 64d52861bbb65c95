// Times single layers with the delegate's own kernels, on this machine or on a phone, and prints JSON:
//   latency_table [--cpu=LEVEL] [--threads=N] [--seconds=S] [FILE]
// FILE, or standard input, has a layer a line; text after # is ignored:
//   conv HEIGHTxWIDTHxCHANNELS FILTERS KHxKW STRIDE STRUCTURE ZEROS
//   dense INPUTS OUTPUTS STRUCTURE ZEROS
//   depthwise HEIGHTxWIDTHxCHANNELS KHxKW STRIDE
// STRUCTURE is dense, unaligned_block:B, aligned_block:B, block_punched:MxN, block_row_column:HxW or pattern:COUNT, and
// ZEROS is a part of 1, 0 for dense. Convolutions have the padding "same" and are timed from planar image to planar
// image, as they are in the middle of a network; weights are random, at random places.
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tflite_delegate/graph/graph.h"
#include "tflite_delegate/graph/thread_pool.h"
#include "tflite_delegate/kernels/kernels.h"
#include "tflite_delegate/ops/conv.h"
#include "tflite_delegate/ops/depthwise_conv.h"
#include "tflite_delegate/ops/fully_connected.h"
#include "tflite_delegate/tools/random_weights.h"
#include "tflite_delegate/version.h"

namespace block_sparse::tools {
namespace {

constexpr float kNoBound = std::numeric_limits<float>::infinity();
constexpr int32_t kLargest = 1 << 15;     // of any extent, so that no product below overflows
constexpr int64_t kMostFloats = 1 << 28;  // of an image or of weights

struct Settings {
  const char* cpu = "auto";
  int threads = 1;
  double seconds = 0.1;
  const char* file = nullptr;
};

struct Layer {
  enum class Kind { kConv, kDense, kDepthwise };
  std::string text;
  Kind kind = Kind::kConv;
  int32_t height = 1, width = 1, channels = 0, filters = 0;
  int32_t kernel_height = 1, kernel_width = 1, stride = 1;
  StructureChoice structure;
  double zeros = 0.0;
};

int64_t Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t{1000000000} + now.tv_nsec;
}

// Stands for an op in the graph and notes how long each run of it took.
class Timed : public graph::Op {
 public:
  explicit Timed(std::unique_ptr<graph::Op> op) : Op(op->inputs, op->output), op_(std::move(op)) {}
  const char* name() const override { return op_->name(); }
  void Constrain(graph::Planner* planner) override { op_->Constrain(planner); }
  bool Prepare(const graph::Graph& graph, const kernels::KernelTable& kernels, int num_threads) override {
    return op_->Prepare(graph, kernels, num_threads);
  }
  size_t ScratchFloats() const override { return op_->ScratchFloats(); }
  void Run(const graph::RunContext& context) const override {
    const int64_t started = Now();
    op_->Run(context);
    nanoseconds.push_back(Now() - started);
  }

  mutable std::vector<int64_t> nanoseconds;

 private:
  std::unique_ptr<graph::Op> op_;
};

// The numbers of "AxBxC", each from 1; false if there are others than `count`.
bool ParseSizes(const std::string& text, size_t count, std::vector<int32_t>* sizes) {
  sizes->assign(1, 0);
  for (char c : text) {
    if (c == 'x') {
      sizes->push_back(0);
    } else if (c >= '0' && c <= '9' && sizes->back() <= kLargest) {
      sizes->back() = sizes->back() * 10 + (c - '0');
    } else {
      return false;
    }
  }
  if (sizes->size() != count) return false;
  for (int32_t size : *sizes) {
    if (size < 1 || size > kLargest) return false;
  }
  return true;
}

std::vector<std::string> Words(const std::string& line) {
  std::vector<std::string> words(1);
  for (char c : line) {
    if (c == ' ' || c == '\t' || c == '\r') {
      if (!words.back().empty()) words.emplace_back();
    } else {
      words.back() += c;
    }
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

bool ParseLayer(const std::vector<std::string>& words, Layer* layer, std::string* error) {
  std::vector<int32_t> sizes;
  const auto size = [&](const std::string& text, const char* what, std::initializer_list<int32_t*> fields) {
    if (!ParseSizes(text, fields.size(), &sizes)) {
      *error = std::string(what) + " is \"" + text + "\"; expected " + std::to_string(fields.size()) +
               (fields.size() > 1 ? " numbers joined by x" : " number") + ", from 1 to " + std::to_string(kLargest);
      return false;
    }
    size_t i = 0;
    for (int32_t* field : fields) *field = sizes[i++];
    return true;
  };
  for (const std::string& word : words) layer->text += (layer->text.empty() ? "" : " ") + word;
  bool sparse = true;
  if (words[0] == "conv" && words.size() == 7) {
    layer->kind = Layer::Kind::kConv;
    if (!size(words[1], "image", {&layer->height, &layer->width, &layer->channels}) ||
        !size(words[2], "filters", {&layer->filters}) ||
        !size(words[3], "kernel", {&layer->kernel_height, &layer->kernel_width}) ||
        !size(words[4], "stride", {&layer->stride})) {
      return false;
    }
  } else if (words[0] == "dense" && words.size() == 5) {
    layer->kind = Layer::Kind::kDense;
    if (!size(words[1], "inputs", {&layer->channels}) || !size(words[2], "outputs", {&layer->filters})) return false;
  } else if (words[0] == "depthwise" && words.size() == 4) {
    layer->kind = Layer::Kind::kDepthwise;
    sparse = false;
    if (!size(words[1], "image", {&layer->height, &layer->width, &layer->channels}) ||
        !size(words[2], "kernel", {&layer->kernel_height, &layer->kernel_width}) ||
        !size(words[3], "stride", {&layer->stride})) {
      return false;
    }
    layer->filters = layer->channels;
  } else {
    *error =
        "expected \"conv HxWxCHANNELS FILTERS KHxKW STRIDE STRUCTURE ZEROS\", \"dense INPUTS OUTPUTS STRUCTURE ZEROS\" "
        "or \"depthwise HxWxCHANNELS KHxKW STRIDE\"";
    return false;
  }
  if (sparse) {
    if (!ParseStructure(words[words.size() - 2], &layer->structure, error)) return false;
    char* end = nullptr;
    layer->zeros = strtod(words.back().c_str(), &end);
    const bool dense = layer->structure.name == "dense";
    if (*end != '\0' || !(layer->zeros >= 0.0 && layer->zeros < 1.0) || (dense && layer->zeros != 0.0)) {
      *error = "zeros are \"" + words.back() + "\"; expected " + (dense ? "0 for dense" : "a number from 0 to below 1");
      return false;
    }
  }
  const int64_t image = int64_t{layer->height} * layer->width * std::max(layer->channels, layer->filters);
  const int64_t weights = int64_t{layer->kernel_height} * layer->kernel_width * layer->channels;
  if (image > kMostFloats || weights * layer->filters > kMostFloats) {
    *error = "more than 2^28 pixels or weights";
    return false;
  }
  return true;
}

// The layer alone in a graph; *timed is the op. `storage` holds what the op reads until it is prepared.
bool BuildGraph(const Layer& layer, Random* random, graph::Graph* graph, Timed** timed, std::vector<float>* storage,
                int64_t* kept) {
  WeightShape shape;
  shape.rows = layer.filters;
  shape.positions = layer.kernel_height * layer.kernel_width;
  shape.channels = layer.channels;
  ops::Weights weights;
  weights.rows = shape.rows;
  weights.columns = shape.columns();
  const bool depthwise = layer.kind == Layer::Kind::kDepthwise;
  if (depthwise || layer.structure.name == "dense") {
    *kept = int64_t{shape.positions} * layer.channels * (depthwise ? 1 : layer.filters);
    *storage = random->Floats(static_cast<size_t>(*kept));
    weights.dense = storage->data();
  } else {
    weights.sparse = RandomWeights(layer.structure, shape, layer.zeros, random);
    const std::vector<float>& values = weights.sparse.values;
    *kept = static_cast<int64_t>(values.size()) - std::count(values.begin(), values.end(), 0.0f);
  }

  std::unique_ptr<graph::Op> op;
  if (layer.kind == Layer::Kind::kDense) {
    const int input = graph->AddInput({1, layer.channels}), output = graph->AddValue({1, layer.filters});
    op = ops::MakeFullyConnected(input, output, std::move(weights), -kNoBound, kNoBound);
  } else {
    ConvOptions options;
    options.kernel_height = layer.kernel_height;
    options.kernel_width = layer.kernel_width;
    options.stride_height = options.stride_width = layer.stride;
    options.padding_same = true;
    int32_t height, width;
    graph::Border border;
    if (!ops::ConvExtent(layer.height, layer.kernel_height, layer.stride, 1, true, &height, &border.top,
                         &border.bottom) ||
        !ops::ConvExtent(layer.width, layer.kernel_width, layer.stride, 1, true, &width, &border.left, &border.right)) {
      return false;
    }
    const int input = graph->Planar(graph->AddInput({1, layer.height, layer.width, layer.channels}));
    const int output = graph->AddPlanarValue({1, height, width, layer.filters});
    if (depthwise) {
      ops::DepthwiseOptions depthwise_options;
      depthwise_options.kernel_height = layer.kernel_height;
      depthwise_options.kernel_width = layer.kernel_width;
      depthwise_options.stride_height = depthwise_options.stride_width = layer.stride;
      op = std::make_unique<ops::DepthwiseConv>(input, output, depthwise_options, border, storage->data(), nullptr,
                                                -kNoBound, kNoBound);
    } else {
      op = std::make_unique<ops::Conv>(input, output, options, border, std::move(weights), -kNoBound, kNoBound);
    }
  }
  const int output = op->output;
  auto wrapped = std::make_unique<Timed>(std::move(op));
  *timed = wrapped.get();
  graph->AddOp(std::move(wrapped));
  graph->AddOutput(graph->Interleaved(output));
  return true;
}

bool Measure(const Layer& layer, const kernels::KernelTable& table, const Settings& settings, graph::ThreadPool* pool,
             bool first) {
  Random random(1);
  graph::Graph graph;
  Timed* timed = nullptr;
  std::vector<float> storage;
  int64_t kept = 0;
  std::string error;
  if (!BuildGraph(layer, &random, &graph, &timed, &storage, &kept) || !graph.Prepare(table, settings.threads, &error)) {
    fprintf(stderr, "latency_table: \"%s\" cannot be run: %s\n", layer.text.c_str(), error.c_str());
    return false;
  }
  const std::vector<float> input =
      random.Floats(static_cast<size_t>(layer.height) * layer.width * static_cast<size_t>(layer.channels));
  std::vector<float> output(static_cast<size_t>(layer.height) * layer.width * static_cast<size_t>(layer.filters));
  const float* inputs[] = {input.data()};
  float* outputs[] = {output.data()};
  graph.Run(inputs, outputs, pool);
  timed->nanoseconds.clear();
  const int64_t end = Now() + static_cast<int64_t>(settings.seconds * 1e9);
  do {
    graph.Run(inputs, outputs, pool);
  } while (Now() < end || timed->nanoseconds.size() < 5);

  std::vector<int64_t>& times = timed->nanoseconds;
  std::sort(times.begin(), times.end());
  const int64_t all = int64_t{layer.kernel_height} * layer.kernel_width * layer.channels *
                      (layer.kind == Layer::Kind::kDepthwise ? 1 : layer.filters);
  printf("%s\n    {\"layer\": \"%s\", \"zeros\": %.6f, \"median_us\": %.3f, \"min_us\": %.3f, \"runs\": %zu}",
         first ? "" : ",", layer.text.c_str(), 1.0 - static_cast<double>(kept) / static_cast<double>(all),
         static_cast<double>(times[times.size() / 2]) / 1e3, static_cast<double>(times[0]) / 1e3, times.size());
  fflush(stdout);
  return true;
}

bool ReadLayers(const char* name, std::vector<Layer>* layers) {
  FILE* file = name == nullptr ? stdin : fopen(name, "r");
  if (file == nullptr) {
    fprintf(stderr, "latency_table: cannot read %s\n", name);
    return false;
  }
  std::string line;
  int number = 1;
  bool good = true;
  for (int c = 0; c != EOF && good;) {
    c = fgetc(file);
    if (c != '\n' && c != EOF) {
      line += static_cast<char>(c);
      continue;
    }
    const std::vector<std::string> words = Words(line.substr(0, line.find('#')));
    Layer layer;
    std::string error;
    if (!words.empty()) {
      good = ParseLayer(words, &layer, &error);
      if (good) layers->push_back(layer);
      if (!good) fprintf(stderr, "latency_table: line %d: %s\n", number, error.c_str());
    }
    line.clear();
    number++;
  }
  if (name != nullptr) fclose(file);
  if (good && layers->empty()) {
    fprintf(stderr, "latency_table: no layers\n");
    good = false;
  }
  return good;
}

bool ParseSettings(int count, char** words, Settings* settings) {
  for (int i = 1; i < count; i++) {
    const char* value = strchr(words[i], '=');
    const size_t name = value == nullptr ? 0 : static_cast<size_t>(value - words[i]);
    char* end = nullptr;
    if (words[i][0] != '-') {
      settings->file = words[i];
    } else if (name == 5 && strncmp(words[i], "--cpu", name) == 0) {
      settings->cpu = value + 1;
    } else if (name == 9 && strncmp(words[i], "--threads", name) == 0) {
      settings->threads = static_cast<int>(strtol(value + 1, &end, 10));
      if (*end != '\0' || settings->threads < 1 || settings->threads > 64) {
        fprintf(stderr, "latency_table: --threads is \"%s\"; expected a number from 1 to 64\n", value + 1);
        return false;
      }
    } else if (name == 9 && strncmp(words[i], "--seconds", name) == 0) {
      settings->seconds = strtod(value + 1, &end);
      if (end == value + 1 || *end != '\0' || !(settings->seconds >= 0.0 && settings->seconds <= 3600.0)) {
        fprintf(stderr, "latency_table: --seconds is \"%s\"; expected a number from 0 to 3600\n", value + 1);
        return false;
      }
    } else {
      fprintf(stderr, "usage: latency_table [--cpu=LEVEL] [--threads=N] [--seconds=S] [FILE]\n");
      return false;
    }
  }
  return true;
}

int Main(int count, char** words) {
  Settings settings;
  std::vector<Layer> layers;
  if (!ParseSettings(count, words, &settings)) return 2;
  const kernels::KernelTable* table = kernels::SelectKernels(settings.cpu);
  if (table == nullptr) {
    fprintf(stderr, "latency_table: --cpu is \"%s\"; on this CPU it can be auto", settings.cpu);
    for (const kernels::KernelTable* const* t = kernels::AvailableKernels(); *t != nullptr; t++) {
      fprintf(stderr, ", %s", (*t)->name);
    }
    fprintf(stderr, "\n");
    return 2;
  }
  if (!ReadLayers(settings.file, &layers)) return 1;
  graph::ThreadPool pool(settings.threads);
  printf("{\n  \"version\": 1,\n  \"library\": \"%s+%s\",\n  \"cpu\": \"%s\",\n  \"threads\": %d,\n  \"layers\": [",
         kVersion, kKernels, table->name, settings.threads);
  for (size_t i = 0; i < layers.size(); i++) {
    if (!Measure(layers[i], *table, settings, &pool, i == 0)) return 1;
  }
  printf("\n  ]\n}\n");
  return 0;
}

}  // namespace
}  // namespace block_sparse::tools

int main(int count, char** words) { return block_sparse::tools::Main(count, words); }
