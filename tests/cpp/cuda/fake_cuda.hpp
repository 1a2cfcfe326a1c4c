// A CUDA runtime of our own. Work that is put into a stream runs only when somebody waits for it, and then in an order
// that is as unkind as streams, events and graphs allow; a graph replays the very calls that were captured. It counts
// what is alive and fails when told to.
#pragma once
#include <cuda_runtime_api.h>

#include <functional>
#include <string>
#include <vector>

namespace fake {

struct Cuda {
  int devices = 1;
  int integrated = 0;     // a Jetson's GPU shares the host's memory
  int memory_device = 0;  // the GPU on which device memory is said to lie
  std::string fails;      // name of the call that fails, each time
  int fails_at = -1;      // index into calls of the one that fails, once
  bool sticky = false;    // after the failure by index every call fails, as after a fault in a kernel
  bool dead = false;
  std::vector<std::string> calls;  // in order
  int alive = 0;                   // streams, events, graphs and allocations
  unsigned order = 0;  // 0: only what is waited for runs, as late as it may; 1: everything else first; n: shuffled by n
  bool guard = false;  // the host cannot touch device memory, nor the device what was hidden from it
  int default_stream = 0;  // how often the default stream was used
  int pageable = 0;        // how often memory that is not pinned was copied from or to
  int launches = 0, graph_launches = 0;
};

Cuda& cuda();
bool called(const std::string& name);
void put(cudaStream_t stream, std::function<void()> work);  // the default stream runs it at once
// Memory of the host that no work in a stream may touch; whole pages of it are protected under guard.
void hide(void* memory, std::size_t bytes);
void forget_hidden();

}  // namespace fake
