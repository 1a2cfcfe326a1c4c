// Opens a library at run time, so that the core loads without it.
#pragma once
#include <dlfcn.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "imkd/error.hpp"

namespace imkd {

// Opens the first candidate that the loader finds, skipping empty names; it stays open until the process ends. Throws
// Error `code` with the loader's message for each and the given fix.
inline void* open_library(const std::string& product, const std::vector<std::string>& candidates,
                          const std::string& fix, Code code = Code::engine_unavailable) {
  std::string tried;
  for (const std::string& path : candidates) {
    if (path.empty()) continue;
    if (void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
    tried += (tried.empty() ? "" : "; ") + std::string(dlerror());
  }
  throw Error(code, product + "'s shared library cannot be opened", tried, fix);
}

inline std::string environment_variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

}  // namespace imkd
