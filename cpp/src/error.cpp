#include "imkd/error.hpp"

#include <cstdio>
#include <utility>

namespace imkd {
namespace {

std::string message(Code code, const std::string& problem, const std::string& where, const std::string& fix) {
  std::string text = "error[" + code_name(code) + "] " + problem;
  if (!where.empty()) text += " / " + where;
  if (!fix.empty()) text += " / " + fix;
  return text;
}

}  // namespace

Error::Error(Code code, std::string what, std::string where, std::string fix)
    : std::runtime_error(message(code, what, where, fix)),
      code_(code),
      problem_(std::move(what)),
      where_(std::move(where)),
      fix_(std::move(fix)) {}

std::string code_name(Code code) {
  char text[16];
  std::snprintf(text, sizeof text, "E%04d", static_cast<int>(code));
  return text;
}

}  // namespace imkd
