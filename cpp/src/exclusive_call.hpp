// At most one call runs on an object at a time, and only in the process that made it.
#pragma once
#include <atomic>

#include "own_process.hpp"

namespace imkd {

struct CallGate {
  OwnProcess process;
  std::atomic_flag busy = ATOMIC_FLAG_INIT;  // set while an exclusive call runs
};

class ExclusiveCall {
 public:
  // Throws Error detector_busy while another call holds the gate, forked in a forked child. object: as the error names
  // it.
  ExclusiveCall(CallGate& gate, const char* object) : busy_(gate.busy) {
    gate.process.require(object);
    if (busy_.test_and_set(std::memory_order_acquire))
      throw Error(Code::detector_busy, "another thread's call is running", object,
                  "use one per thread, or serialise the calls");
  }
  ~ExclusiveCall() { busy_.clear(std::memory_order_release); }
  ExclusiveCall(const ExclusiveCall&) = delete;
  ExclusiveCall& operator=(const ExclusiveCall&) = delete;

 private:
  std::atomic_flag& busy_;
};

}  // namespace imkd
