// The names of the live enums in Python and in C; those of the core's are in fields.hpp.
#pragma once
#include "fields.hpp"
#include "imkd/synchronizer.hpp"
#include "imkd/tracker.hpp"

namespace imkd {

template <>
struct EnumNames<Pushed> {
  static constexpr const char* names[] = {"kept", "late", "duplicate", "future", "invalid"};
};

template <>
struct EnumNames<TrackState> {
  static constexpr const char* names[] = {"tentative", "confirmed", "coasting"};
};

}  // namespace imkd
