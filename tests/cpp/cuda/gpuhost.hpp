// Runs CUDA kernels on the CPU, for tests. Threads of a block that never synchronise share one stack and run as a loop;
// a thread that reaches a barrier or a warp collective is parked on its own fiber. A barrier that not every thread
// reaches aborts with a message. For ThreadSanitizer every CUDA thread is a thread, and blocks are not ordered.
// GPUHOST_ORDER=fwd|rev|shuffle:SEED: order of blocks and threads.
#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "switch.hpp"

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct uint3 {
  unsigned x, y, z;
};
inline thread_local uint3 threadIdx, blockIdx;
inline thread_local dim3 blockDim, gridDim;

namespace gpuhost {
enum State : uint8_t { kNew, kReady, kBarrier, kWarp, kDone };
struct Group {
  unsigned mask, arrived = 0, gen = 0;
  std::array<uint64_t, 32> slot[2];
};
struct Fiber {
  void* sp;
  char* stack = nullptr;
  unsigned tid = 0;
  void* san = nullptr;
};
struct Thread {
  State st = kNew;
  Fiber* f = nullptr;
  int* wait_gen = nullptr;
  Group* g = nullptr;
  unsigned gen = 0;
  int red = 0;
};
struct Ctx {
  std::vector<Thread> th;
  std::vector<unsigned> order;
  std::vector<std::vector<std::unique_ptr<Group>>> warps;
  std::vector<Fiber*> idle;
  void* main_sp = nullptr;
  Fiber* cur = nullptr;
  unsigned next = 0, nthreads = 0, tid = 0;
  std::function<void()> body;
  int red_val = 0;
  const void* main_bottom = nullptr;
  size_t main_size = 0;
  void* main_san = nullptr;
  char sync_obj[2] = {0, 0};
  unsigned barrier_gen = 0;
  unsigned barriers = 0, exchanges = 0;  // of this kernel, in the block with most; exchanges between a warp's lanes
  char* launch_obj = nullptr;
  ~Ctx();
};
struct Quiet {  // hides the emulator's own serial bookkeeping from the race detector
#if GPUHOST_TSAN
  Quiet() {
    AnnotateIgnoreReadsBegin("", 0);
    AnnotateIgnoreWritesBegin("", 0);
  }
  ~Quiet() {
    AnnotateIgnoreWritesEnd("", 0);
    AnnotateIgnoreReadsEnd("", 0);
  }
#else
  Quiet() {}
#endif
};
inline Ctx& ctx() {
  static thread_local Ctx c;
  return c;
}
constexpr size_t kStack = 64 << 10;
[[noreturn]] inline void die(const char* m) {
  std::fprintf(stderr, "gpuhost: %s\n", m);
  std::fflush(nullptr);
  std::abort();
}
inline void set_tid(Ctx& c, unsigned t) {
  c.tid = t;
  threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y)};
}
inline void to_main(Ctx& c) {
  Fiber* f = c.cur;
#if GPUHOST_ASAN
  void* fs;
  __sanitizer_start_switch_fiber(&fs, c.main_bottom, c.main_size);
#elif GPUHOST_TSAN
  __tsan_switch_to_fiber(c.main_san, 1);
#endif
  gpuhost_switch(&f->sp, c.main_sp);
#if GPUHOST_ASAN
  __sanitizer_finish_switch_fiber(fs, &c.main_bottom, &c.main_size);
#endif
}
inline void fiber_main() {
  Ctx& c = ctx();
#if GPUHOST_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &c.main_bottom, &c.main_size);
#endif
#if GPUHOST_TSAN
  auto* quiet = new Quiet;
#endif
  for (;;) {  // run threads back to back until one parks (then this fiber belongs to it until it finishes)
    Fiber* f = c.cur;
#if GPUHOST_TSAN
    delete quiet;
    c.body();
    quiet = new Quiet;
    __tsan_release(c.launch_obj);
#else
    c.body();
#endif
    c.th[f->tid].st = kDone;
#if !GPUHOST_TSAN
    if (c.next < c.nthreads) {
      unsigned t = c.order[c.next++];
      f->tid = t;
      c.th[t].f = f;
      c.th[t].st = kReady;
      set_tid(c, t);
      continue;
    }
#endif
    c.idle.push_back(f);
#if GPUHOST_TSAN
    delete quiet;
    to_main(c);
    quiet = new Quiet;
#else
    to_main(c);
#endif
  }
}
inline void resume(Ctx& c, Fiber* f) {
  c.cur = f;
  set_tid(c, f->tid);
#if GPUHOST_ASAN
  void* fs;
  __sanitizer_start_switch_fiber(&fs, f->stack, kStack);
#elif GPUHOST_TSAN
  __tsan_switch_to_fiber(f->san, 1);  // 1 = no implied synchronisation: CUDA threads stay unordered
#endif
  gpuhost_switch(&c.main_sp, f->sp);
#if GPUHOST_ASAN
  __sanitizer_finish_switch_fiber(fs, nullptr, nullptr);
#endif
}
inline Fiber* get_fiber([[maybe_unused]] Ctx& c) {
  Fiber* f;
#if !GPUHOST_TSAN  // under TSan each CUDA thread gets its own fiber identity and stack
  if (!c.idle.empty()) {
    f = c.idle.back();
    c.idle.pop_back();
  } else
#endif
  {
    f = new Fiber;
    f->stack = static_cast<char*>(std::aligned_alloc(4096, kStack));
    static thread_local unsigned colour = 0;  // stagger the stack tops: equal page offsets would share one cache set
    void** top = reinterpret_cast<void**>(f->stack + kStack - (colour++ % 61) * 256);
#if defined(__x86_64__)
    std::memset(top - 8, 0, 64);
    top[-2] = reinterpret_cast<void*>(fiber_main);
    f->sp = top - 8;
#else
    std::memset(top - 20, 0, 160);
    top[-20 + 11] = reinterpret_cast<void*>(fiber_main);
    f->sp = top - 20;
#endif
  }
#if GPUHOST_TSAN
  f->san = __tsan_create_fiber(0);
#endif
  return f;
}
inline void run_block(Ctx& c) {
  const unsigned n = c.nthreads;
  c.th.assign(n, Thread{});
  c.next = 0;
  c.warps.clear();
  c.warps.resize((n + 31) / 32);
  c.red_val = 0;
  const unsigned first_barrier = c.barrier_gen;
  for (;;) {
    if (c.next < n) {  // start (at least) one more thread
      unsigned t = c.order[c.next++];
      Fiber* f = get_fiber(c);
      f->tid = t;
      c.th[t].f = f;
      c.th[t].st = kReady;
      resume(c, f);
      continue;
    }
    bool progressed = false;
    unsigned done = 0, bar = 0;
    for (unsigned i = 0; i < n; ++i) {
      Thread& t = c.th[c.order[i]];
      if (t.st == kWarp && t.g->gen != t.gen) t.st = kReady;
      if (t.st == kReady) {
        resume(c, t.f);
        progressed = true;
      }
      done += t.st == kDone;
      bar += t.st == kBarrier;
    }
    if (done == n) {
      unsigned in_warp = 0;
      for (const auto& warp : c.warps) {
        unsigned steps = 0;
        for (const auto& group : warp) steps += group->gen;
        in_warp = std::max(in_warp, steps);
      }
      c.barriers = std::max(c.barriers, c.barrier_gen - first_barrier);
      c.exchanges = std::max(c.exchanges, in_warp);
      break;
    }
    if (bar == n) {
      ++c.barrier_gen;
      for (auto& t : c.th) t.st = kReady;
      c.red_val = 0;
      for (auto& t : c.th) c.red_val += t.red;
      continue;
    }
    if (!progressed) {
      std::fprintf(
          stderr,
          "gpuhost: block (%u,%u,%u) stuck: %u of %u threads at __syncthreads, %u finished, %u in a warp collective\n",
          blockIdx.x, blockIdx.y, blockIdx.z, bar, n, done, n - bar - done);
      die("barrier not reached by every thread (divergent __syncthreads or wrong warp mask)");
    }
  }
}
inline int block_barrier(int v = 0) {
  Quiet q;
  Ctx& c = ctx();
  Thread& t = c.th[c.tid];
  t.st = kBarrier;
  t.red = v;
#if GPUHOST_TSAN
  char* so = &c.sync_obj[c.barrier_gen & 1];
  __tsan_release(so);
  to_main(c);
  __tsan_acquire(so);
#else
  to_main(c);
#endif
  return c.red_val;
}
// every lane of mask deposits v; returns the group's slots of this generation
inline std::array<uint64_t, 32> warp_exchange(unsigned mask, uint64_t v) {
  Quiet q;
  Ctx& c = ctx();
  unsigned tid = c.tid, w = tid / 32, lane = tid % 32, rem = c.nthreads - w * 32;
  if (rem < 32) mask &= (1u << rem) - 1;
  if (!(mask >> lane & 1)) die("warp collective: calling lane is not in its own mask");
  Group* g = nullptr;
  for (auto& p : c.warps[w])
    if (p->mask == mask) g = p.get();
  if (!g) {
    c.warps[w].push_back(std::make_unique<Group>());
    g = c.warps[w].back().get();
    g->mask = mask;
  }
  unsigned gen = g->gen;
  g->slot[gen & 1][lane] = v;
  g->arrived |= 1u << lane;
#if GPUHOST_TSAN
  __tsan_release(&g->slot[gen & 1]);
#endif
  if (g->arrived == g->mask) {
    g->arrived = 0;
    ++g->gen;
  } else {
    Thread& t = c.th[tid];
    t.st = kWarp;
    t.g = g;
    t.gen = gen;
    to_main(c);
  }
#if GPUHOST_TSAN
  __tsan_acquire(&g->slot[gen & 1]);
#endif
  return g->slot[gen & 1];
}
inline void make_order(std::vector<unsigned>& o, unsigned n, unsigned salt) {
  o.resize(n);
  for (unsigned i = 0; i < n; ++i) o[i] = i;
  const char* s = std::getenv("GPUHOST_ORDER");
  if (!s || !std::strncmp(s, "fwd", 3)) return;
  if (!std::strncmp(s, "rev", 3)) {
    std::reverse(o.begin(), o.end());
    return;
  }
  const char* p = std::strchr(s, ':');
  uint64_t r = (p ? std::strtoull(p + 1, nullptr, 10) : 1) * 0x9E3779B97F4A7C15ull + salt + 1;
  for (unsigned i = n; i > 1; --i) {
    r = r * 6364136223846793005ull + 1442695040888963407ull;
    std::swap(o[i - 1], o[(r >> 33) % i]);
  }
}
inline Ctx::~Ctx() {
  Quiet q;
  for (Fiber* f : idle) {
#if GPUHOST_TSAN
    if (f->san) __tsan_destroy_fiber(f->san);
    continue;  // leaked: freeing would be reported as a race with the fiber's last access
#endif
    std::free(f->stack);
    delete f;
  }
}
struct Observer {  // called after each kernel, and for memory that is set without one
  virtual ~Observer() = default;
  virtual void kernel(const char* what, unsigned barriers, unsigned exchanges) = 0;
  virtual void set(const void* to, std::size_t bytes) = 0;
};
inline Observer* observer = nullptr;

template <class F>
void run(dim3 g, dim3 b, F fn) {
  const unsigned nb = g.x * g.y * g.z, nt = b.x * b.y * b.z;
  if (!nb || !nt || nt > 1024 || b.z > 64 || g.y > 65535 || g.z > 65535) die("invalid launch configuration");
  if (ctx().cur) die("nested launch");
  ctx().barriers = ctx().exchanges = 0;
  std::vector<unsigned> border;
  make_order(border, nb, 7);
  std::atomic<unsigned> cursor{0};
  static char launch_obj;
  auto worker = [&](unsigned max_blocks) {
    Quiet q;
    Ctx& c = ctx();
    blockDim = b;
    gridDim = g;
    c.nthreads = nt;
    make_order(c.order, nt, 3);
    c.body = fn;
    c.launch_obj = &launch_obj;
#if GPUHOST_TSAN
    c.main_san = __tsan_get_current_fiber();
#endif
    for (unsigned i; max_blocks && (i = cursor.fetch_add(1, std::memory_order_relaxed)) < nb; --max_blocks) {
      unsigned k = border[i];
      blockIdx = {k % g.x, k / g.x % g.y, k / (g.x * g.y)};
      run_block(c);
    }
    c.cur = nullptr;
    c.body = nullptr;
  };
#if GPUHOST_TSAN  // one OS thread per block: fresh __shared__ storage, and no happens-before edge between blocks
  for (unsigned i = 0; i < nb; ++i) std::thread(worker, 1u).join();
  __tsan_acquire(&launch_obj);
#else
  worker(~0u);
#endif
}
template <class T>
uint64_t bits(T v) {
  static_assert(sizeof(T) <= 8, "");
  uint64_t u = 0;
  std::memcpy(&u, &v, sizeof(T));
  return u;
}
template <class T>
T unbits(uint64_t u) {
  T v;
  std::memcpy(&v, &u, sizeof(T));
  return v;
}
}  // namespace gpuhost
