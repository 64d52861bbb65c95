// Which of its tilings each kind of op runs fastest with, as measured on this CPU; kept between loads as text.
#ifndef TFLITE_DELEGATE_GRAPH_TUNING_H_
#define TFLITE_DELEGATE_GRAPH_TUNING_H_

#include <map>
#include <string>

namespace block_sparse {
namespace graph {

class Tuning {
 public:
  // `machine` says what the times hold for; `text` is what Text() gave, of any machines. Lines that are something else
  // are left out.
  Tuning(const std::string& machine, const std::string& text);

  // -1 if it has not been measured.
  int Find(const std::string& kind) const;
  void Set(const std::string& kind, int tiling);
  // A line "TILING KIND on MACHINE" each.
  std::string Text() const;

 private:
  std::string machine_;
  std::map<std::string, int> tilings_;  // by kind and machine
};

}  // namespace graph
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_GRAPH_TUNING_H_
