// The process that made an object. A forked child has a copy of its memory, but not its threads, and a lock that one of
// them held is never opened.
#pragma once
#include <unistd.h>

#include <string>

#include "imkd/error.hpp"

namespace imkd {

class OwnProcess {
 public:
  bool here() const { return process_ == getpid(); }
  // Throws Error forked in a forked child. object: as the error names it.
  void require(const char* object) const {
    if (here()) return;
    throw Error(Code::forked, "belongs to process " + std::to_string(process_) + ", which forked this one", object,
                "make another one in this process, or start the process by \"spawn\" instead of \"fork\"");
  }

 private:
  pid_t process_ = getpid();
};

}  // namespace imkd
