// The names of the live enums in Python and in C; those of the core's are in fields.hpp.
#pragma once
#include "fields.hpp"
#include "imkd/synchronizer.hpp"

namespace imkd {

template <>
struct EnumNames<Pushed> {
  static constexpr const char* names[] = {"kept", "late", "duplicate", "future", "invalid"};
};

}  // namespace imkd
