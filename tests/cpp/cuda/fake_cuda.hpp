// A CUDA runtime for tests. Work in a stream runs only when the host synchronises with it, in the most unfavourable
// order that streams, events and graphs allow; a graph replays the captured calls. The runtime counts live objects and
// fails calls on request.
#pragma once
#include <cuda_runtime_api.h>

#include <functional>
#include <string>
#include <vector>

namespace fake {

struct Cuda {
  int devices = 1;
  int device = 0;         // the calling thread's
  int other_device = 0;   // calls that need device 0 made while another one was the thread's
  int integrated = 0;     // a Jetson's GPU shares the host's memory
  int memory_device = 0;  // the GPU that is reported for device memory
  std::string fails;      // name of the call that fails, each time
  int fails_at = -1;      // index into calls of the one that fails, once
  bool sticky = false;    // after the failure by index every call fails, as after a fault in a kernel
  bool dead = false;
  std::vector<std::string> calls;  // in order
  int alive = 0;                   // streams, events, graphs and allocations
  unsigned order = 0;      // 0: only awaited work runs, as late as possible; 1: all other work first; n: shuffled by n
  bool guard = false;      // the host cannot access device memory, nor the device hidden memory
  int default_stream = 0;  // uses of the default stream
  int pageable = 0;        // copies from or to pageable memory
  int launches = 0;
  int graph_launches = 0;
};

Cuda& cuda();
bool called(const std::string& name);
void put(cudaStream_t stream, std::function<void()> work);  // the default stream runs it at once
// Host memory that no work in a stream may access; its whole pages are protected under guard.
void hide(void* memory, std::size_t bytes);
void forget_hidden();

}  // namespace fake
