// Counts the bytes that kernels read and write: 32-byte sectors of the watched memory, each once per kernel, as with an
// unlimited cache that is flushed between kernels. Only a module built with IMKD_COUNT counts: there the compiler's
// address sanitizer reports every access to the functions in traffic.cpp.
#pragma once
#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace traffic {

enum Kind { kInput, kBetween, kOutput };
// Kernel, or "set" for memory set without one -> bytes read, bytes written, launches, barriers of the block with most,
// exchanges between the lanes of the warp with most; "fewest" -> bytes of inputs, of outputs.
using Counts = std::map<std::string, std::vector<long long>>;

#if defined(IMKD_COUNT)
void start();  // discards all counts and watched memory
void watch(const void* begin, std::size_t bytes, Kind kind);
Counts counted();
#else
inline void start() {}
inline void watch(const void*, std::size_t, Kind) {}
inline Counts counted() { return {}; }
#endif

}  // namespace traffic
