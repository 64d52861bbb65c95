#include "tflite_delegate/report.h"

#include <cstdio>

namespace block_sparse {

namespace {

std::string Quoted(const std::string& text) {
  std::string quoted = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char code[8];
      snprintf(code, sizeof code, "\\u%04x", c);
      quoted += code;
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

}  // namespace

int Report::Claimed() const {
  int claimed = 0;
  for (const NodeReport& node : nodes) claimed += node.left.empty();
  return claimed;
}

std::string Report::Summary() const {
  return "version " + version + ", cpu " + cpu + ", " + std::to_string(threads) +
         (threads == 1 ? " thread: " : " threads: ") + std::to_string(Claimed()) + " of " +
         std::to_string(nodes.size()) + " nodes in " + std::to_string(partitions) +
         (partitions == 1 ? " partition" : " partitions");
}

std::string Report::Json() const {
  std::string json = "{\"version\": " + Quoted(version) + ", \"kernels\": " + Quoted(kernels) +
                     ", \"cpu\": " + Quoted(cpu) + ", \"num_threads\": " + std::to_string(threads) +
                     ", \"partitions\": " + std::to_string(partitions) +
                     ", \"nodes_claimed\": " + std::to_string(Claimed()) +
                     ", \"nodes_total\": " + std::to_string(nodes.size()) + ", \"left\": [";
  bool first = true;
  for (const NodeReport& node : nodes) {
    if (node.left.empty()) continue;
    if (!first) json += ", ";
    first = false;
    json += "{\"node\": " + std::to_string(node.node) + ", \"op\": " + Quoted(node.op) +
            ", \"reason\": " + Quoted(node.left) + "}";
  }
  return json + "]}\n";
}

bool WriteFile(const std::string& path, const std::string& text) {
  const std::string aside = path + ".partial";
  FILE* file = fopen(aside.c_str(), "wb");
  if (file == nullptr) return false;
  bool written = fwrite(text.data(), 1, text.size(), file) == text.size();
  written = fclose(file) == 0 && written;
  if (written && rename(aside.c_str(), path.c_str()) == 0) return true;
  remove(aside.c_str());
  return false;
}

}  // namespace block_sparse
