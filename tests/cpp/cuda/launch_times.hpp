// Times an op by CUDA events, on request, after the launch whose result is returned.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "cuda_runtime/resources.hpp"

namespace launch_times {

using imkd::cuda::check;

struct Request {
  int repeats = 0;          // 0: nothing is timed
  std::size_t flushed = 0;  // bytes written before each launch, to empty the caches: several times the L2
};
inline Request request;
inline std::map<std::string, std::vector<float>> times;  // us, of the last op; "copy" of measure_copy

// The time of each of `repeats` calls, us; before(stream) runs outside of it.
template <class Op, class Before>
std::vector<float> each(int repeats, const Op& op, const Before& before) {
  const imkd::cuda::OwnStream stream = imkd::cuda::make_stream();
  std::vector<imkd::cuda::OwnEvent> from, to;
  for (int i = 0; i < repeats; ++i) {
    from.push_back(imkd::cuda::make_event(0));
    to.push_back(imkd::cuda::make_event(0));
    before(stream.get());
    check(cudaEventRecord(from.back().get(), stream.get()), "cudaEventRecord");
    op(stream.get());
    check(cudaEventRecord(to.back().get(), stream.get()), "cudaEventRecord");
  }
  check(cudaStreamSynchronize(stream.get()), "cudaStreamSynchronize");
  std::vector<float> result;
  for (int i = 0; i < repeats; ++i) {
    float ms = 0;
    check(cudaEventElapsedTime(&ms, from[i].get(), to[i].get()), "cudaEventElapsedTime");
    result.push_back(ms * 1000);
  }
  return result;
}

// "cold": of each launch with emptied caches; "queued": the mean of launches one after the other.
template <class Op>
void measure(const Op& op) {
  const auto flush = imkd::cuda::device_memory<unsigned char>(request.flushed);
  times["cold"] = each(request.repeats, op, [&](cudaStream_t stream) {
    check(cudaMemsetAsync(flush.get(), 0, request.flushed, stream), "cudaMemsetAsync");
  });
  const auto all = [&](cudaStream_t stream) {
    for (int i = 0; i < request.repeats; ++i) op(stream);
  };
  times["queued"] = {each(1, all, [](cudaStream_t) {})[0] / static_cast<float>(request.repeats)};
}

// Copies from device memory to device memory, us each.
inline std::vector<float> measure_copy(std::size_t bytes, int repeats) {
  const auto from = imkd::cuda::device_memory<unsigned char>(bytes);
  const auto to = imkd::cuda::device_memory<unsigned char>(bytes);
  const auto op = [&](cudaStream_t stream) {
    check(cudaMemcpyAsync(to.get(), from.get(), bytes, cudaMemcpyDeviceToDevice, stream), "cudaMemcpyAsync");
  };
  return each(repeats, op, [](cudaStream_t) {});
}

}  // namespace launch_times
