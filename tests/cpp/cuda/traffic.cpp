#include "traffic.hpp"

#include <cstdint>

#include "gpuhost.hpp"

namespace traffic {
namespace {

constexpr std::size_t kSector = 32;  // bytes; the smallest transfer of DRAM and L2
enum : std::uint8_t { kRead = 1, kWritten = 2 };

struct Range {
  std::uintptr_t begin;
  std::uintptr_t end;
  Kind kind;
  std::vector<std::uint8_t> now;   // by sector, of this kernel
  std::vector<std::uint8_t> ever;  // of all kernels
};

struct Counter : gpuhost::Observer {
  std::vector<Range> ranges;
  Counts counts;

  void touch(std::uintptr_t at, std::size_t bytes, std::uint8_t how) {
    for (Range& range : ranges)
      if (at >= range.begin && at < range.end)
        for (std::uintptr_t sector = at / kSector; sector <= (at + bytes - 1) / kSector; ++sector) {
          range.now[sector - range.begin / kSector] |= how;
          range.ever[sector - range.begin / kSector] |= how;
        }
  }
  void kernel(const char* what, unsigned barriers, unsigned exchanges) override {
    std::vector<long long>& sum = counts[what];
    sum.resize(5);
    ++sum[2];
    sum[3] += barriers;
    sum[4] += exchanges;
    for (Range& range : ranges)
      for (std::uint8_t& how : range.now) {
        sum[0] += how & kRead ? kSector : 0;
        sum[1] += how & kWritten ? kSector : 0;
        how = 0;
      }
  }
  void set(const void* to, std::size_t bytes) override {
    touch(reinterpret_cast<std::uintptr_t>(to), bytes, kWritten);
    kernel("set", 0, 0);
  }
};

Counter counter;

}  // namespace

void start() {
  counter.ranges.clear();
  counter.counts.clear();
  gpuhost::observer = &counter;
}

void watch(const void* begin, std::size_t bytes, Kind kind) {
  const auto at = reinterpret_cast<std::uintptr_t>(begin);
  if (!bytes) return;
  const std::size_t sectors = (at + bytes - 1) / kSector - at / kSector + 1;
  counter.ranges.push_back(
      {at, at + bytes, kind, std::vector<std::uint8_t>(sectors), std::vector<std::uint8_t>(sectors)});
}

Counts counted() {
  std::vector<long long> fewest(2);
  for (const Range& range : counter.ranges)
    for (std::uint8_t how : range.ever) {
      if (range.kind == kInput && (how & kRead)) fewest[0] += kSector;
      if (range.kind == kOutput && (how & kWritten)) fewest[1] += kSector;
    }
  Counts all = counter.counts;
  all["fewest"] = fewest;
  return all;
}

}  // namespace traffic

extern "C" {  // called before every access of the code that is built with -fsanitize=kernel-address
#define IMKD_ACCESS(size)                                                                                   \
  void __asan_load##size##_noabort(std::uintptr_t at) { traffic::counter.touch(at, size, traffic::kRead); } \
  void __asan_store##size##_noabort(std::uintptr_t at) { traffic::counter.touch(at, size, traffic::kWritten); }
IMKD_ACCESS(1)
IMKD_ACCESS(2)
IMKD_ACCESS(4)
IMKD_ACCESS(8)
IMKD_ACCESS(16)
void __asan_loadN_noabort(std::uintptr_t at, std::size_t size) { traffic::counter.touch(at, size, traffic::kRead); }
void __asan_storeN_noabort(std::uintptr_t at, std::size_t size) { traffic::counter.touch(at, size, traffic::kWritten); }
void __asan_handle_no_return() {}
}
