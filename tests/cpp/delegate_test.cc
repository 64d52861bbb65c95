// The delegate as a runtime meets it: the two exported functions and what hangs on the delegate that they make.
#include "tflite_delegate/delegate.h"

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cpp/fake_runtime.h"
#include "tests/cpp/format_testing.h"
#include "tests/cpp/kernel_testing.h"

extern "C" {
TfLiteDelegate* tflite_plugin_create_delegate(const char* const* keys, const char* const* values, size_t count,
                                              void (*report_error)(const char*));
void tflite_plugin_destroy_delegate(TfLiteDelegate* delegate);
}

namespace block_sparse {
namespace testing {
namespace {

std::string reported;  // by the last Create

struct Destroy {
  void operator()(TfLiteDelegate* delegate) const { tflite_plugin_destroy_delegate(delegate); }
};
using DelegatePointer = std::unique_ptr<TfLiteDelegate, Destroy>;

DelegatePointer Create(const std::vector<std::pair<const char*, const char*>>& options) {
  std::vector<const char*> keys, values;
  for (auto [key, value] : options) {
    keys.push_back(key);
    values.push_back(value);
  }
  reported.clear();
  return DelegatePointer(tflite_plugin_create_delegate(keys.data(), values.data(), keys.size(),
                                                       [](const char* message) { reported += message; }));
}

TEST(Plugin, DefaultsAndDestruction) {
  const DelegatePointer delegate(tflite_plugin_create_delegate(nullptr, nullptr, 0, nullptr));
  ASSERT_NE(delegate, nullptr);
  EXPECT_NE(delegate->Prepare, nullptr);
  // Without the flag a runtime prepares, and refuses, our operators before it asks us.
  EXPECT_EQ(delegate->flags, kTfLiteDelegateFlagsAllowDynamicTensors);
  tflite_plugin_destroy_delegate(nullptr);
}

TEST(Plugin, GoodOptions) {
  for (const char* threads : {"1", "2", "8", "64", "08"}) EXPECT_NE(Create({{"num_threads", threads}}), nullptr);
  for (const char* flag : {"0", "1", "true", "false"}) EXPECT_NE(Create({{"verbose", flag}}), nullptr);
  EXPECT_NE(Create({{"cpu", "auto"}}), nullptr);
  EXPECT_NE(Create({{"cpu", "scalar"}}), nullptr);
  for (const kernels::KernelTable* level : Levels()) {
    const DelegatePointer delegate = Create({{"cpu", level->name}});
    ASSERT_NE(delegate, nullptr) << level->name;
    EXPECT_STREQ(CpuLevel(delegate.get()), level->name);
  }
  EXPECT_NE(Create({{"num_threads", "2"}, {"cpu", "scalar"}, {"verbose", "1"}, {"num_threads", "3"}}), nullptr);
  EXPECT_EQ(reported, "");
}

TEST(Plugin, BadOptionsAreNamed) {
  const std::pair<const char*, const char*> bad[] = {
      {"threads", "2"},
      {"", ""},
      {"NUM_THREADS", "2"},
      {"num_threads ", "2"},
      {"num_threads", ""},
      {"num_threads", "0"},
      {"num_threads", "-1"},
      {"num_threads", "65"},
      {"num_threads", "2.0"},
      {"num_threads", " 2"},
      {"num_threads", "two"},
      {"num_threads", "99999999999999999999"},
      {"num_threads", "1e1"},
      {"num_threads", "00000000000000000000000000000001"},
      {"cpu", ""},
      {"cpu", "AVX2"},
      {"cpu", "sse"},
      {"cpu", "auto "},
      {"verbose", ""},
      {"verbose", "yes"},
      {"verbose", "2"},
      {"verbose", "TRUE"},
  };
  for (const auto& [key, value] : bad) {
    EXPECT_EQ(Create({{key, value}}), nullptr) << key << " " << value;
    EXPECT_NE(reported.find(std::string("`") + key + "`"), std::string::npos) << reported;
    // A good one before or behind makes no difference.
    EXPECT_EQ(Create({{"num_threads", "1"}, {key, value}}), nullptr);
    EXPECT_EQ(Create({{key, value}, {"verbose", "0"}}), nullptr);
  }
  const std::string message = (Create({{"num_threads", "many"}}), reported);
  EXPECT_NE(message.find("many"), std::string::npos) << message;
  EXPECT_NE(message.find("64"), std::string::npos) << message;
  const std::string unknown = (Create({{"colour", "red"}}), reported);
  EXPECT_NE(unknown.find("num_threads"), std::string::npos) << unknown;
}

TEST(Plugin, ALevelOfAnotherCpuIsRefused) {
#if defined(__aarch64__)
  EXPECT_EQ(Create({{"cpu", "avx2"}}), nullptr);
#else
  EXPECT_EQ(Create({{"cpu", "neon"}}), nullptr);
#endif
  EXPECT_NE(reported.find("scalar"), std::string::npos) << reported;  // one that would do
}

TEST(Plugin, MissingKeysAndValues) {
  EXPECT_EQ(Create({{nullptr, "1"}}), nullptr);
  EXPECT_NE(reported, "");
  EXPECT_EQ(Create({{"num_threads", nullptr}}), nullptr);
  EXPECT_NE(reported, "");
  EXPECT_EQ(tflite_plugin_create_delegate(nullptr, nullptr, 1, nullptr), nullptr);
}

TEST(Plugin, NobodyToReportTo) {
  const char* keys[] = {"speed"};
  const char* values[] = {"high"};
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(tflite_plugin_create_delegate(keys, values, 1, nullptr), nullptr);
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(log.find("block_sparse: unknown option `speed`"), 0u) << log;
}

// Output channels of the convolutions below, and of the other tensors.
constexpr int32_t kRows = 6, kChannels = 3;

// Options of a 3 x 3 convolution with one block of 2, at rows 1 and 2 of the column of (ky, kx, channel).
std::vector<uint8_t> ConvOptions(int ky, int kx, int channel) {
  const int column = (ky * 3 + kx) * kChannels + channel;
  std::vector<uint8_t> gaps;
  AppendGap(static_cast<uint64_t>(column * kRows + 1), &gaps);
  return ConvolutionOptions("unaligned_block", kRows, 9 * kChannels, 3, 3)
      .Int("stride_height", 1)
      .Int("stride_width", 1)
      .Int("dilation_height", 1)
      .Int("dilation_width", 1)
      .String("padding", "same")
      .String("activation", "none")
      .Int("block", 2)
      .Blob("positions", gaps)
      .Finish();
}

class DelegateTest : public ::testing::Test {
 protected:
  // The convolution whose rows 1 and 2 are 2 and -3 times channel 0 of the pixel above, and a bias.
  int Convolution(int input, int output) {
    const int values = runtime_.Constant({2}, {2.0f, -3.0f});
    const int bias = runtime_.Constant({kRows}, {0, 1, 2, 3, 4, 5});
    return runtime_.Custom("BlockSparseConv2D", ConvOptions(0, 1, 0), {input, values, bias}, {output});
  }
  static std::vector<float> Exact(const std::vector<float>& x, const FakeRuntime::Dims& dims) {
    std::vector<float> y;
    const int32_t height = dims[1], width = dims[2];
    for (size_t p = 0; p < x.size() / kChannels; p++) {
      const size_t row = p / width % height;
      const float above = row == 0 ? 0.0f : x[(p - width) * kChannels];
      for (int r = 0; r < kRows; r++) {
        y.push_back(static_cast<float>(r) + (r == 1 ? 2.0f * above : r == 2 ? -3.0f * above : 0.0f));
      }
    }
    return y;
  }
  // What the delegate says at load goes to the error stream; it is kept in log_.
  TfLiteStatus Apply(const DelegatePointer& delegate) {
    ::testing::internal::CaptureStderr();
    const TfLiteStatus status = runtime_.Apply(delegate.get());
    log_ = ::testing::internal::GetCapturedStderr();
    return status;
  }
  void ExpectLogged(const std::string& text) { EXPECT_NE(log_.find(text), std::string::npos) << log_; }
  void ExpectError(const std::string& text) {
    EXPECT_NE(runtime_.errors.find(text), std::string::npos)
        << "`" << text << "` is not in `" << runtime_.errors << "`";
  }

  // Before the runtime, so that it goes after it.
  DelegatePointer delegate_;
  FakeRuntime runtime_;
  std::string log_;
};

TEST_F(DelegateTest, RunsOnEveryLevelWithAnyNumberOfThreads) {
  for (const kernels::KernelTable* level : Levels()) {
    for (const char* threads : {"1", "2", "5"}) {
      const DelegatePointer delegate = Create({{"cpu", level->name}, {"num_threads", threads}});
      FakeRuntime runtime;
      const int input = runtime.Tensor({2, 4, 5, kChannels}), output = runtime.Tensor({2, 4, 5, kRows});
      const int values = runtime.Constant({2}, {2.0f, -3.0f}), bias = runtime.Constant({kRows}, {0, 1, 2, 3, 4, 5});
      runtime.Custom("BlockSparseConv2D", ConvOptions(0, 1, 0), {input, values, bias}, {output});
      runtime.Output(output);
      ::testing::internal::CaptureStderr();
      ASSERT_EQ(runtime.Apply(delegate.get()), kTfLiteOk) << runtime.errors;
      const std::string log = ::testing::internal::GetCapturedStderr();
      EXPECT_NE(log.find(std::string("cpu ") + level->name), std::string::npos) << log;
      EXPECT_NE(log.find("1 of 1 nodes"), std::string::npos) << log;
      ASSERT_EQ(runtime.Allocate(), kTfLiteOk) << runtime.errors;
      Random random(1);
      for (int i = 0; i < 3; i++) {  // tensors lie elsewhere each time
        const std::vector<float> x = random.Floats(2 * 4 * 5 * kChannels);
        ASSERT_EQ(runtime.Invoke({{input, x}}), kTfLiteOk);
        const std::vector<float> exact = Exact(x, {2, 4, 5, kChannels});
        for (size_t k = 0; k < exact.size(); k++) EXPECT_NEAR(runtime.values(output)[k], exact[k], 1e-5);
      }
    }
  }
}

TEST_F(DelegateTest, FollowsResizedInputs) {
  delegate_ = Create({});
  const int input = runtime_.Tensor({1, 2, 2, kChannels}), output = runtime_.Tensor({1, 2, 2, kRows});
  Convolution(input, output);
  runtime_.Output(output);
  ASSERT_EQ(Apply(delegate_), kTfLiteOk);
  Random random(2);
  for (const FakeRuntime::Dims& dims : {FakeRuntime::Dims{1, 2, 2, 3}, {3, 7, 4, 3}, {1, 1, 1, 3}, {1, 2, 2, 3}}) {
    runtime_.Resize(input, dims);
    ASSERT_EQ(runtime_.Allocate(), kTfLiteOk) << runtime_.errors;
    EXPECT_EQ(runtime_.dims(output), (FakeRuntime::Dims{dims[0], dims[1], dims[2], kRows}));
    const std::vector<float> x = random.Floats(static_cast<size_t>(dims[0] * dims[1] * dims[2] * kChannels));
    ASSERT_EQ(runtime_.Invoke({{input, x}}), kTfLiteOk);
    const std::vector<float> exact = Exact(x, dims);
    for (size_t k = 0; k < exact.size(); k++) EXPECT_NEAR(runtime_.values(output)[k], exact[k], 1e-5);
  }
}

TEST_F(DelegateTest, RefusesInputsOfAnotherShape) {
  delegate_ = Create({});
  const int input = runtime_.Tensor({1, 2, 2, kChannels}), output = runtime_.Tensor({1, 2, 2, kRows});
  Convolution(input, output);
  runtime_.Output(output);
  ASSERT_EQ(Apply(delegate_), kTfLiteOk);
  for (const FakeRuntime::Dims& dims : {FakeRuntime::Dims{1, 2, 2, 4}, {4, 3}, {}, {1, 0, 2, 3}, {1, -1, 2, 3}}) {
    runtime_.Resize(input, dims);
    runtime_.errors.clear();
    EXPECT_EQ(runtime_.Allocate(), kTfLiteError);
    EXPECT_NE(runtime_.errors, "");
  }
  runtime_.Resize(input, {1, 2, 2, kChannels});
  EXPECT_EQ(runtime_.Allocate(), kTfLiteOk);
}

TEST_F(DelegateTest, LeavesAModelWithoutOurOperators) {
  delegate_ = Create({});
  const int input = runtime_.Tensor({1, 2, 2, 2}), output = runtime_.Tensor({1, 2, 2, 3});
  const int weights = runtime_.Constant({3, 1, 1, 2}, std::vector<float>(6, 1.0f));
  TfLiteConvParams params = {};
  params.padding = kTfLitePaddingSame;
  params.stride_width = params.stride_height = params.dilation_width_factor = params.dilation_height_factor = 1;
  runtime_.Node(kTfLiteBuiltinConv2d, {input, weights, -1}, {output}, &params);
  runtime_.Output(output);
  EXPECT_EQ(Apply(delegate_), kTfLiteOk);
  EXPECT_TRUE(runtime_.replaced().empty());
  ExpectLogged("0 of 1 nodes");
  ExpectLogged("node 0");
}

TEST_F(DelegateTest, AModelWithoutNodes) {
  delegate_ = Create({});
  runtime_.Output(runtime_.Tensor({1}));
  EXPECT_EQ(Apply(delegate_), kTfLiteOk);
  ExpectLogged("0 of 0 nodes");
}

TEST_F(DelegateTest, SaysNothingOfASubgraphWithoutTensors) {
  delegate_ = Create({{"report_path", "/nonexistent/place/report.json"}});
  EXPECT_EQ(Apply(delegate_), kTfLiteOk);
  EXPECT_EQ(log_.find("nodes"), std::string::npos) << log_;
}

TEST_F(DelegateTest, WorksAroundWhatItDoesNotKnow) {
  delegate_ = Create({});
  const FakeRuntime::Dims dims = {1, 3, 4, kChannels};
  const int input = runtime_.Tensor(dims), first = runtime_.Tensor({1, 3, 4, kRows}), strange = runtime_.Tensor(dims);
  const int second = runtime_.Tensor({1, 3, 4, kRows}), sum = runtime_.Tensor({1, 3, 4, kRows});
  Convolution(input, first);
  const int left = runtime_.Custom("Strange", {}, {first}, {strange});
  const int behind = Convolution(strange, second);
  TfLiteAddParams params = {};
  runtime_.Node(kTfLiteBuiltinAdd, {first, second}, {sum}, &params);
  runtime_.Output(sum);
  ASSERT_EQ(Apply(delegate_), kTfLiteOk);
  EXPECT_EQ(runtime_.replaced(), (std::vector<std::vector<int>>{{0}, {behind, behind + 1}}));
  ExpectLogged("3 of 4 nodes in 2 partitions");
  ExpectLogged("Strange");
  ASSERT_EQ(runtime_.Allocate(), kTfLiteOk) << runtime_.errors;
  Random random(3);
  const std::vector<float> x = random.Floats(36);
  ASSERT_EQ(runtime_.Invoke({{input, x}},
                            [&](int node) {
                              EXPECT_EQ(node, left);
                              for (int i = 0; i < 36; i++) runtime_.data(strange)[i] = runtime_.data(first)[2 * i];
                            }),
            kTfLiteOk);
  const std::vector<float> a = Exact(x, dims);
  std::vector<float> between;
  for (size_t i = 0; i < 36; i++) between.push_back(a[2 * i]);
  const std::vector<float> b = Exact(between, dims);
  for (size_t i = 0; i < a.size(); i++) EXPECT_NEAR(runtime_.values(sum)[i], a[i] + b[i], 1e-4) << i;
}

TEST_F(DelegateTest, OneDelegateForTwoModels) {
  delegate_ = Create({{"num_threads", "2"}});
  FakeRuntime other;
  const int input = runtime_.Tensor({1, 2, 2, kChannels}), output = runtime_.Tensor({1, 2, 2, kRows});
  Convolution(input, output);
  runtime_.Output(output);
  const int other_input = other.Tensor({1, 2, 2, 2});
  other.Output(other_input);
  ASSERT_EQ(Apply(delegate_), kTfLiteOk);
  ASSERT_EQ(other.Apply(delegate_.get()), kTfLiteOk);
  ASSERT_EQ(runtime_.Allocate(), kTfLiteOk);
  const std::vector<float> x(12, 1.0f);
  ASSERT_EQ(runtime_.Invoke({{input, x}}), kTfLiteOk);
  EXPECT_EQ(runtime_.values(output), Exact(x, {1, 2, 2, kChannels}));
}

TEST_F(DelegateTest, RunsOnAfterTheDelegateIsDestroyed) {
  for (const char* threads : {"1", "3"}) {
    DelegatePointer delegate = Create({{"num_threads", threads}});
    FakeRuntime runtime;
    const int input = runtime.Tensor({1, 2, 5, kChannels}), output = runtime.Tensor({1, 2, 5, kRows});
    const int values = runtime.Constant({2}, {2.0f, -3.0f}), bias = runtime.Constant({kRows}, {0, 1, 2, 3, 4, 5});
    runtime.Custom("BlockSparseConv2D", ConvOptions(0, 1, 0), {input, values, bias}, {output});
    runtime.Output(output);
    ASSERT_EQ(runtime.Apply(delegate.get()), kTfLiteOk) << runtime.errors;
    ASSERT_EQ(runtime.Allocate(), kTfLiteOk) << runtime.errors;
    delegate.reset();
    for (const FakeRuntime::Dims& dims : {FakeRuntime::Dims{1, 2, 5, kChannels}, {1, 4, 3, kChannels}}) {
      runtime.Resize(input, dims);
      ASSERT_EQ(runtime.Allocate(), kTfLiteOk) << runtime.errors;
      const std::vector<float> x(static_cast<size_t>(dims[1]) * dims[2] * kChannels, 1.5f);
      ASSERT_EQ(runtime.Invoke({{input, x}}), kTfLiteOk);
      EXPECT_EQ(runtime.values(output), Exact(x, dims));
    }
  }
}

TEST_F(DelegateTest, WritesAReport) {
  const std::string path = ::testing::TempDir() + "/block_sparse_report_" + std::to_string(getpid()) + ".json";
  delegate_ = Create({{"report_path", path.c_str()}});
  const int input = runtime_.Tensor({1, 2, 2, kChannels}), output = runtime_.Tensor({1, 2, 2, kRows});
  const int other = runtime_.Tensor({1, 2, 2, kRows});
  Convolution(input, output);
  runtime_.Custom("Str\"ange\n", {}, {output}, {other});
  runtime_.Output(other);
  ASSERT_EQ(Apply(delegate_), kTfLiteOk);
  FILE* file = fopen(path.c_str(), "rb");
  ASSERT_NE(file, nullptr);
  char text[2000] = {};
  EXPECT_GT(fread(text, 1, sizeof text - 1, file), 0u);
  fclose(file);
  remove(path.c_str());
  const std::string json = text;
  EXPECT_NE(json.find("\"nodes_claimed\": 1, \"nodes_total\": 2"), std::string::npos) << json;
  EXPECT_NE(json.find("Str\\\"ange\\u000a"), std::string::npos) << json;
}

TEST_F(DelegateTest, SaysWhereItCannotWriteAReport) {
  delegate_ = Create({{"report_path", "/nonexistent/place/report.json"}});
  runtime_.Output(runtime_.Tensor({1}));
  EXPECT_EQ(Apply(delegate_), kTfLiteError);
  ExpectError("/nonexistent/place/report.json");
}

TEST_F(DelegateTest, KeepsWhatItHasMeasured) {
  const std::string path = ::testing::TempDir() + "/block_sparse_tuning_" + std::to_string(getpid()) + ".txt";
  remove(path.c_str());
  std::string kept;
  for (const bool known : {false, true}) {
    delegate_ = Create({{"tuning_path", path.c_str()}, {"num_threads", known ? "2" : "1"}});
    FakeRuntime runtime;
    const FakeRuntime::Dims dims = {1, 3, 4, kChannels};
    const int input = runtime.Tensor(dims), output = runtime.Tensor({1, 3, 4, kRows});
    const int values = runtime.Constant({2}, {2.0f, -3.0f}), bias = runtime.Constant({kRows}, {0, 1, 2, 3, 4, 5});
    runtime.Custom("BlockSparseConv2D", ConvOptions(0, 1, 0), {input, values, bias}, {output});
    runtime.Output(output);
    ASSERT_EQ(runtime.Apply(delegate_.get()), kTfLiteOk) << runtime.errors;
    ::testing::internal::CaptureStderr();
    const TfLiteStatus status = runtime.Allocate();
    log_ = ::testing::internal::GetCapturedStderr();
    ASSERT_EQ(status, kTfLiteOk) << runtime.errors;
    EXPECT_EQ(log_.find("measuring") == std::string::npos, known) << log_;
    const std::vector<float> x(36, 1.5f);
    ASSERT_EQ(runtime.Invoke({{input, x}}), kTfLiteOk);
    EXPECT_EQ(runtime.values(output), Exact(x, dims));
    FILE* file = fopen(path.c_str(), "rb");
    ASSERT_NE(file, nullptr);
    char text[2000] = {};
    EXPECT_GT(fread(text, 1, sizeof text - 1, file), 0u);
    fclose(file);
    if (known) {
      EXPECT_EQ(kept, text);
    }
    kept = text;
    EXPECT_NE(kept.find("sparse_conv"), std::string::npos) << kept;
  }
  remove(path.c_str());
}

TEST_F(DelegateTest, SaysWhereItCannotKeepWhatItHasMeasured) {
  delegate_ = Create({{"tuning_path", "/nonexistent/place/tuning.txt"}});
  const int input = runtime_.Tensor({1, 2, 2, kChannels}), output = runtime_.Tensor({1, 2, 2, kRows});
  Convolution(input, output);
  runtime_.Output(output);
  ASSERT_EQ(Apply(delegate_), kTfLiteOk);
  EXPECT_EQ(runtime_.Allocate(), kTfLiteError);
  EXPECT_NE(runtime_.errors.find("/nonexistent/place/tuning.txt"), std::string::npos) << runtime_.errors;
}

// --- Operators that must not load. ---

class BadNodeTest : public DelegateTest {
 protected:
  void SetUp() override {
    delegate_ = Create({});
    input_ = runtime_.Tensor({1, 4, 4, kChannels});
    output_ = runtime_.Tensor({1, 4, 4, kRows});
    values_ = runtime_.Constant({2}, {1.0f, 2.0f});
    bias_ = runtime_.Constant({kRows}, std::vector<float>(kRows, 0.0f));
  }
  void ExpectRefused(const std::vector<uint8_t>& options, const std::vector<int>& inputs, const std::string& reason) {
    const int node = runtime_.Custom("BlockSparseConv2D", options, inputs, {output_});
    runtime_.Output(output_);
    EXPECT_EQ(Apply(delegate_), kTfLiteError);
    ExpectError("BlockSparseConv2D");
    ExpectError("node " + std::to_string(node));
    ExpectError(reason);
    EXPECT_TRUE(runtime_.replaced().empty());
  }
  void ExpectRefused(const std::vector<int>& inputs, const std::string& reason) {
    ExpectRefused(ConvOptions(0, 0, 0), inputs, reason);
  }

  int input_ = 0, output_ = 0, values_ = 0, bias_ = 0;
};

TEST_F(BadNodeTest, NoOptions) { ExpectRefused({}, {input_, values_, bias_}, "custom options"); }

TEST_F(BadNodeTest, OptionsThatAreNone) { ExpectRefused({1, 2, 3}, {input_, values_, bias_}, "custom options"); }

TEST_F(BadNodeTest, AMissingKeyIsNamed) {
  const auto options = ConvolutionOptions("unaligned_block", kRows, 27, 3, 3).Int("block", 2).Finish();
  ExpectRefused(options, {input_, values_, bias_}, "positions");
}

TEST_F(BadNodeTest, AnotherVersion) {
  const auto options = ConvolutionOptions("unaligned_block", kRows, 27, 3, 3).Int("version", 2).Finish();
  ExpectRefused(options, {input_, values_, bias_}, "version");
}

TEST_F(BadNodeTest, NoValues) { ExpectRefused({input_}, "inputs"); }

TEST_F(BadNodeTest, TooManyInputs) { ExpectRefused({input_, values_, bias_, bias_}, "inputs"); }

TEST_F(BadNodeTest, AbsentValues) { ExpectRefused({input_, -1, bias_}, "values"); }

TEST_F(BadNodeTest, AbsentInput) { ExpectRefused({-1, values_, bias_}, "input"); }

TEST_F(BadNodeTest, ValuesThatChange) { ExpectRefused({input_, runtime_.Tensor({2}), bias_}, "constant"); }

TEST_F(BadNodeTest, ValuesOfTwoDimensions) {
  ExpectRefused({input_, runtime_.Constant({1, 2}, {1.0f, 2.0f}), bias_}, "one-dimensional");
}

TEST_F(BadNodeTest, TooManyValues) {
  ExpectRefused({input_, runtime_.Constant({4}, std::vector<float>(4, 1.0f)), bias_}, "values");
}

TEST_F(BadNodeTest, ValuesWithoutData) {
  runtime_.tensor(values_).data.data = nullptr;
  ExpectRefused({input_, values_, bias_}, "constant");
}

TEST_F(BadNodeTest, ValuesShorterThanTheirShape) {
  runtime_.tensor(values_).bytes = 4;
  ExpectRefused({input_, values_, bias_}, "size");
}

TEST_F(BadNodeTest, QuantisedInput) {
  runtime_.tensor(input_).type = kTfLiteInt8;
  ExpectRefused({input_, values_, bias_}, "fp32");
}

TEST_F(BadNodeTest, HalfPrecisionValues) {
  runtime_.tensor(values_).type = kTfLiteFloat16;
  ExpectRefused({input_, values_, bias_}, "fp32");
}

TEST_F(BadNodeTest, AShortBias) { ExpectRefused({input_, values_, runtime_.Constant({2}, {0, 0})}, "bias"); }

TEST_F(BadNodeTest, ABiasThatChanges) { ExpectRefused({input_, values_, runtime_.Tensor({kRows})}, "bias"); }

TEST_F(BadNodeTest, AnImageWithOtherChannels) {
  ExpectRefused({runtime_.Tensor({1, 4, 4, kChannels + 1}), values_, bias_}, "columns");
}

TEST_F(BadNodeTest, AnInputThatIsNoImage) { ExpectRefused({runtime_.Tensor({4, 3}), values_, bias_}, "dimensions"); }

TEST_F(BadNodeTest, AnOperatorOfThisFamilyThatDoesNotExist) {
  runtime_.Custom("BlockSparseConv3D", ConvOptions(0, 0, 0), {input_, values_, bias_}, {output_});
  runtime_.Output(output_);
  EXPECT_EQ(Apply(delegate_), kTfLiteOk);  // it may be somebody else's
  EXPECT_TRUE(runtime_.replaced().empty());
  ExpectLogged("BlockSparseConv3D");
}

TEST_F(BadNodeTest, TheOthersAreNotHalfTaken) {
  const int good = runtime_.Tensor({1, 4, 4, kRows});
  runtime_.Custom("BlockSparseConv2D", ConvOptions(0, 0, 0), {input_, values_, bias_}, {good});
  ExpectRefused({1, 2, 3}, {input_, values_, bias_}, "node 1");
}

}  // namespace
}  // namespace testing
}  // namespace block_sparse
