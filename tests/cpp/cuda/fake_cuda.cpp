#include "fake_cuda.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <set>

#include "gpuhost.hpp"

namespace fake {
namespace {

struct Node {
  std::function<void()> work;
  std::set<int> after;
};
struct Capture {
  std::vector<Node> nodes;
  cudaStream_t origin = nullptr;
  bool broken = false;
};
struct EventState {
  long recorded = 0, done = 0;
  std::shared_ptr<Capture> capture;
  std::set<int> tips;
};
struct Op {
  std::function<void()> work;
  std::shared_ptr<EventState> wait, mark;
  long generation = 0;
  bool ready() const { return !wait || wait->done >= generation; }
};

}  // namespace
}  // namespace fake

using namespace fake;

struct CUstream_st {
  std::deque<Op> queue;
  std::shared_ptr<Capture> capture;
  std::set<int> tips;
};
struct CUevent_st {
  std::shared_ptr<EventState> state = std::make_shared<EventState>();
};
struct CUgraph_st {
  std::vector<Node> nodes;
};
struct CUgraphExec_st {
  std::shared_ptr<const std::vector<Node>> nodes;  // a launch may outlive it
};

namespace fake {
namespace {

struct Memory {
  std::size_t bytes;
  cudaMemoryType type;
};
std::map<char*, Memory> memories;
std::map<char*, std::size_t> hidden;  // whole pages
std::vector<cudaStream_t> streams;
unsigned state = 1;
constexpr std::size_t kPage = 4096;

unsigned random(unsigned below) { return (state = state * 1664525u + 1013904223u) % 65536 * below / 65536; }
std::size_t pages(std::size_t bytes) { return (std::max<std::size_t>(bytes, 1) + kPage - 1) / kPage * kPage; }

[[noreturn]] void die(const char* why) {
  std::fprintf(stderr, "fake CUDA: %s\n", why);
  std::abort();
}

void protect(bool device_runs) {
  if (!cuda().guard) return;
  for (const auto& [begin, memory] : memories)
    if (memory.type == cudaMemoryTypeDevice)
      mprotect(begin, pages(memory.bytes), device_runs ? PROT_READ | PROT_WRITE : PROT_NONE);
  for (const auto& [begin, bytes] : hidden) mprotect(begin, bytes, device_runs ? PROT_NONE : PROT_READ | PROT_WRITE);
}

void step(cudaStream_t stream) {
  Op op = std::move(stream->queue.front());
  stream->queue.pop_front();
  if (op.work) op.work();
  if (op.mark) op.mark->done = std::max(op.mark->done, op.generation);
}

// The stream that runs next; null where none can.
cudaStream_t pick(cudaStream_t target) {
  std::vector<cudaStream_t> ready;
  for (cudaStream_t s : streams)
    if (!s->queue.empty() && s->queue.front().ready()) ready.push_back(s);
  if (ready.empty()) return nullptr;
  if (cuda().order > 1) return ready[random(static_cast<unsigned>(ready.size()))];
  for (cudaStream_t s : ready)
    if ((s == target) == (cuda().order == 0)) return s;
  return ready.front();
}

void finish(cudaStream_t target) {
  protect(true);
  while (!target->queue.empty()) {
    cudaStream_t next = pick(target);
    if (!next) die("a stream waits for an event that is never recorded");
    step(next);
  }
  protect(false);
}

void replay(const std::vector<Node>& nodes) {
  std::vector<bool> done(nodes.size());
  for (std::size_t left = nodes.size(); left > 0; --left) {
    std::vector<std::size_t> ready;
    for (std::size_t i = 0; i < nodes.size(); ++i)
      if (!done[i] && std::all_of(nodes[i].after.begin(), nodes[i].after.end(),
                                  [&](int k) { return done[static_cast<std::size_t>(k)]; }))
        ready.push_back(i);
    const std::size_t node = cuda().order == 0   ? ready.front()
                             : cuda().order == 1 ? ready.back()
                                                 : ready[random(static_cast<unsigned>(ready.size()))];
    nodes[node].work();
    done[node] = true;
  }
}

cudaError_t status(const char* name, cudaError_t error = cudaErrorLaunchFailure) {
  Cuda& c = cuda();
  const bool now = c.fails_at == static_cast<int>(c.calls.size());
  c.calls.emplace_back(name);
  if (c.device != 0 && c.calls.back() != "cudaGetDevice" && c.calls.back() != "cudaSetDevice") ++c.other_device;
  if (c.dead) return cudaErrorLaunchFailure;
  if (now && c.sticky) c.dead = true;
  return now || c.fails == name ? error : cudaSuccess;
}

// Calls that are forbidden during capture.
cudaError_t outside_capture(const char* name, cudaError_t error = cudaErrorLaunchFailure) {
  bool captures = false;
  for (cudaStream_t s : streams)
    if (s->capture) s->capture->broken = captures = true;
  const cudaError_t result = status(name, error);
  return captures && result == cudaSuccess ? cudaErrorStreamCaptureUnsupported : result;
}

cudaError_t allocate(void** memory, std::size_t bytes, cudaMemoryType type, cudaError_t result) {
  if (result != cudaSuccess) return result;
  auto* begin = static_cast<char*>(
      mmap(nullptr, pages(bytes) + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  mprotect(begin + pages(bytes), kPage, PROT_NONE);
  std::memset(begin, 0xA5, pages(bytes));
  memories[begin] = {bytes, type};
  ++cuda().alive;
  protect(false);
  *memory = begin;
  return cudaSuccess;
}

void release(void* memory) {
  const auto memory_entry = memories.find(static_cast<char*>(memory));
  if (!memory) return;
  if (memory_entry == memories.end()) die("memory is freed that is not there");
  if (!cuda().dead)
    for (cudaStream_t stream : streams) finish(stream);  // freeing waits for the device
  munmap(memory_entry->first, pages(memory_entry->second.bytes) + kPage);
  memories.erase(memory_entry);
  --cuda().alive;
}

const std::pair<char* const, Memory>* memory_of(const void* pointer) {
  auto* p = static_cast<char*>(const_cast<void*>(pointer));
  auto memory_entry = memories.upper_bound(p);
  if (memory_entry == memories.begin()) return nullptr;
  --memory_entry;
  return p < memory_entry->first + memory_entry->second.bytes ? &*memory_entry : nullptr;
}

}  // namespace

Cuda& cuda() {
  static Cuda cuda;
  return cuda;
}

bool called(const std::string& name) { return std::count(cuda().calls.begin(), cuda().calls.end(), name) > 0; }

void put(cudaStream_t stream, std::function<void()> work) {
  if (!stream) {
    ++cuda().default_stream;
    protect(true);
    work();
    protect(false);
  } else if (stream->capture) {
    std::vector<Node>& nodes = stream->capture->nodes;
    nodes.push_back({std::move(work), stream->tips});
    stream->tips = {static_cast<int>(nodes.size()) - 1};
  } else {
    stream->queue.push_back({std::move(work), nullptr, nullptr, 0});
  }
}

void hide(void* memory, std::size_t bytes) {
  const auto begin = (reinterpret_cast<std::uintptr_t>(memory) + kPage - 1) / kPage * kPage;
  const auto end = (reinterpret_cast<std::uintptr_t>(memory) + bytes) / kPage * kPage;
  if (end > begin) hidden[reinterpret_cast<char*>(begin)] = end - begin;
}

void forget_hidden() { hidden.clear(); }

}  // namespace fake

extern "C" {

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInsufficientDriver:
      return "no driver";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureUnjoined:
      return "capture has unjoined work";
    default:
      return "unspecified launch failure";
  }
}

cudaError_t cudaGetLastError() { return status("cudaGetLastError"); }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = cuda().devices;
  return status("cudaGetDeviceCount", cudaErrorInsufficientDriver);
}
cudaError_t cudaGetDevice(int* device) {
  *device = cuda().device;
  return status("cudaGetDevice");
}
cudaError_t cudaSetDevice(int device) {
  const cudaError_t result = status("cudaSetDevice");
  if (result == cudaSuccess) cuda().device = device;
  return result;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 12060;
  return status("cudaDriverGetVersion");
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  std::strcpy(properties->name, "Orin");
  properties->major = 8;
  properties->minor = 7;
  return status("cudaGetDeviceProperties");
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = cuda().integrated;
  return status("cudaDeviceGetAttribute");
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  *attributes = {};
  if (const auto* memory = memory_of(pointer))
    attributes->type = memory->second.type, attributes->devicePointer = const_cast<void*>(pointer),
    attributes->device = cuda().memory_device;
  return status("cudaPointerGetAttributes");
}

// No call may have a size of 0: the driver's allocations refuse it.
cudaError_t cudaMalloc(void** memory, std::size_t size) {
  if (size == 0) return cudaErrorInvalidValue;
  return allocate(memory, size, cudaMemoryTypeDevice, outside_capture("cudaMalloc", cudaErrorMemoryAllocation));
}
cudaError_t cudaHostAlloc(void** memory, std::size_t size, unsigned) {
  if (size == 0) return cudaErrorInvalidValue;
  return allocate(memory, size, cudaMemoryTypeHost, outside_capture("cudaHostAlloc", cudaErrorMemoryAllocation));
}
cudaError_t cudaFree(void* memory) {
  release(memory);
  return status("cudaFree");
}
cudaError_t cudaFreeHost(void* memory) {
  release(memory);
  return status("cudaFreeHost");
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  const cudaError_t result = bytes ? status("cudaMemcpyAsync") : cudaErrorInvalidValue;
  if (result != cudaSuccess) return result;
  if (memory_of(to) && !memory_of(from)) {  // from pageable memory: read before the call returns
    ++cuda().pageable;
    auto copy =
        std::make_shared<std::vector<char>>(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
    put(stream, [=] { std::memcpy(to, copy->data(), bytes); });
    return cudaSuccess;
  }
  if (!memory_of(to)) ++cuda().pageable;
  put(stream, [=] { std::memcpy(to, from, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  const cudaError_t result = bytes ? status("cudaMemsetAsync") : cudaErrorInvalidValue;
  if (result != cudaSuccess) return result;
  put(stream, [=] {
    std::memset(to, value, bytes);
    if (gpuhost::observer) gpuhost::observer->set(to, bytes);
  });
  return result;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const cudaError_t result = outside_capture("cudaStreamCreateWithFlags");
  if (result != cudaSuccess) return result;
  *stream = new CUstream_st;
  streams.push_back(*stream);
  ++cuda().alive;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (!cuda().dead) finish(stream);
  streams.erase(std::find(streams.begin(), streams.end(), stream));
  delete stream;
  --cuda().alive;
  return status("cudaStreamDestroy");
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const cudaError_t result = outside_capture("cudaStreamSynchronize");
  if (result == cudaSuccess && stream) finish(stream);
  return result;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const cudaError_t result = status("cudaStreamWaitEvent");
  if (result != cudaSuccess) return result;
  EventState& e = *event->state;
  if (e.capture) {  // the stream joins the capture
    if (stream->capture && stream->capture != e.capture) return cudaErrorStreamCaptureUnsupported;
    stream->capture = e.capture;
    stream->tips.insert(e.tips.begin(), e.tips.end());
  } else if (stream->capture) {
    stream->capture->broken = true;  // work from outside cannot be waited for
    return cudaErrorStreamCaptureUnsupported;
  } else {
    stream->queue.push_back({nullptr, event->state, nullptr, e.recorded});
  }
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  const cudaError_t result = status("cudaEventCreateWithFlags");
  if (result != cudaSuccess) return result;
  *event = new CUevent_st;
  ++cuda().alive;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  --cuda().alive;
  return status("cudaEventDestroy");
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const cudaError_t result = status("cudaEventRecord");
  if (result != cudaSuccess) return result;
  EventState& e = *event->state;
  e.capture = stream->capture;
  e.tips = stream->tips;
  if (!stream->capture) stream->queue.push_back({nullptr, nullptr, event->state, ++e.recorded});
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to) {
  *ms = from->state->done > 0 && to->state->done > 0 ? 0.25f : -1.f;
  return status("cudaEventElapsedTime");
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const cudaError_t result = status("cudaStreamBeginCapture");
  if (result != cudaSuccess) return result;
  stream->capture = std::make_shared<Capture>();
  stream->capture->origin = stream;
  stream->tips.clear();
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  cudaError_t result = status("cudaStreamEndCapture");
  const std::shared_ptr<Capture> capture = stream->capture;
  if (!capture) return cudaErrorInvalidValue;
  std::set<int> reached(stream->tips);
  for (std::vector<int> open(reached.begin(), reached.end()); !open.empty();) {
    const int node = open.back();
    open.pop_back();
    for (int before : capture->nodes[static_cast<std::size_t>(node)].after)
      if (reached.insert(before).second) open.push_back(before);
  }
  for (cudaStream_t s : streams) {
    if (s->capture != capture) continue;
    for (int tip : s->tips)
      if (!reached.count(tip) && result == cudaSuccess) result = cudaErrorStreamCaptureUnjoined;
    s->capture.reset(), s->tips.clear();
  }
  if (capture->broken && result == cudaSuccess) result = cudaErrorStreamCaptureUnsupported;
  if (result != cudaSuccess) return result;
  *graph = new CUgraph_st{capture->nodes};
  ++cuda().alive;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  const cudaError_t result = status("cudaGraphInstantiate");
  if (result != cudaSuccess) return result;
  *exec = new CUgraphExec_st{std::make_shared<const std::vector<Node>>(graph->nodes)};
  ++cuda().alive;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  const cudaError_t result = status("cudaGraphLaunch");
  if (result != cudaSuccess) return result;
  ++cuda().graph_launches;
  put(stream, [nodes = exec->nodes] { replay(*nodes); });
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  --cuda().alive;
  return status("cudaGraphDestroy");
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  --cuda().alive;
  return status("cudaGraphExecDestroy");
}

}  // extern "C"
