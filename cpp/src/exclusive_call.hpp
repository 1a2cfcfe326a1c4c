// At most one call runs on an object at a time.
#pragma once
#include <atomic>

#include "imkd/error.hpp"

namespace imkd {

class ExclusiveCall {
 public:
  // Throws Error detector_busy while another call holds the flag. object: as the error names it.
  ExclusiveCall(std::atomic_flag& busy, const char* object) : busy_(busy) {
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
