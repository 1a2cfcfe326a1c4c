// Counts what kernels read and write: 32-byte sectors of the watched memory, each once per kernel, as a cache that
// forgets everything between kernels and nothing within one would have it. Only a module that is built with IMKD_COUNT
// counts; the compiler's address sanitizer then reports every access to the functions below.
#pragma once
#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace traffic {

enum Kind { kInput, kBetween, kOutput };
using Counts = std::map<std::string, std::vector<long long>>;  // kernel or "set" -> bytes read, bytes written; "fewest"
                                                               // -> of inputs, of outputs

#if defined(IMKD_COUNT)
void start();  // forget all counts and watched memory
void watch(const void* begin, std::size_t bytes, Kind kind);
Counts counted();
#else
inline void start() {}
inline void watch(const void*, std::size_t, Kind) {}
inline Counts counted() { return {}; }
#endif

}  // namespace traffic
