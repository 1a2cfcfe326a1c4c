// The refusal that every option of the live classes shares.
#pragma once
#include <string>

#include "imkd/error.hpp"
#include "number_text.hpp"

namespace imkd {

[[noreturn]] inline void refuse_option(const std::string& name, double value, const std::string& allowed) {
  throw Error(Code::spec_bad_value, "is " + number_text(value, 6) + ", out of range", name, "use " + allowed);
}

}  // namespace imkd
