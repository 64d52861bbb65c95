// What the delegate did with a model: said once at load, and written as JSON where option `report_path` asks for it.
#ifndef TFLITE_DELEGATE_REPORT_H_
#define TFLITE_DELEGATE_REPORT_H_

#include <string>
#include <vector>

namespace block_sparse {

struct NodeReport {
  int node = 0;
  std::string op;
  std::string left;  // why it was left to the runtime; empty if it was claimed
};

struct Report {
  std::string version, kernels, cpu;  // `kernels`: their fingerprint
  int threads = 0, partitions = 0;
  std::vector<NodeReport> nodes;

  int Claimed() const;
  std::string Summary() const;  // one line
  std::string Json() const;
};

// Writes beside `path` and renames. False if that failed.
bool WriteFile(const std::string& path, const std::string& text);

}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_REPORT_H_
