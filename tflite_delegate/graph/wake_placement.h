// Where a thread that sleeps is woken.
//
// The kernel of a virtual machine takes an idle processor for one that its host has taken away, wakes a thread on the
// waker's own processor, and moves it to the idle one at some later tick: 1.3 to 4 ms later as measured under KVM,
// which is a whole inference of MobileNet, and again after every pause. A mask without the waker's processor, for the
// moment of the waking, makes it 0.1 ms. The kernels of real machines find the idle processor by themselves.
#ifndef TFLITE_DELEGATE_GRAPH_WAKE_PLACEMENT_H_
#define TFLITE_DELEGATE_GRAPH_WAKE_PLACEMENT_H_

#include <sched.h>
#include <sys/types.h>

namespace block_sparse {
namespace graph {

class WakePlacement {
 public:
  // Whether it is worth the calls: in a virtual machine, which only x86 can be asked for.
#if defined(__x86_64__)
  static constexpr bool kMayHelp = true;
#else
  static constexpr bool kMayHelp = false;
#endif
  static bool Helps();

  // By the thread itself, before it sleeps for the first time.
  void Begin();

  // By the waker, while the thread sleeps: it shall not wake on this processor, unless it may run nowhere else.
  void AwayFromHere();
  // By the thread when it is awake: it may run where it might before.
  void End();

 private:
  pid_t thread_ = 0;
  bool away_ = false;
  cpu_set_t allowed_;  // while away
};

}  // namespace graph
}  // namespace block_sparse

#endif  // TFLITE_DELEGATE_GRAPH_WAKE_PLACEMENT_H_
