// The refusal that every option of the live classes shares.
#pragma once
#include <cstdio>
#include <string>

#include "imkd/error.hpp"

namespace imkd {

[[noreturn]] inline void refuse_option(const std::string& name, double value, const std::string& allowed) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  throw Error(Code::spec_bad_value, std::string("is ") + text + ", out of range", name, "use " + allowed);
}

}  // namespace imkd
