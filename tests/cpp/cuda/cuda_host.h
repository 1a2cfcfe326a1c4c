// cuda_host.h - one include for kernels that must build with nvcc AND with a plain host C++17 compiler.
//   nvcc      : the real CUDA runtime; launch() is <<<>>>.
//   g++/clang : every CUDA thread is run on the CPU. Threads that never synchronise share one stack and run
//               as a loop; a thread that reaches a barrier / warp collective is parked on its own fiber.
// Runtime knobs (host build): GPUHOST_ORDER=fwd|rev|shuffle:SEED  (order of blocks and threads)
//                             GPUHOST_THREADS=N                   (blocks spread over N OS threads)
#pragma once
#include <cstddef>
#include <cstdint>
#if defined(__CUDACC__)
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define GPU_DYN_SHARED(T, name)                                         \
  extern __shared__ __align__(16) unsigned char gpu_dyn_shared_bytes[]; \
  T* name = reinterpret_cast<T*>(gpu_dyn_shared_bytes)
template <class... P, class... A>
inline void launch(void (*k)(P...), dim3 g, dim3 b, size_t shm, cudaStream_t s, A... a) {
  k<<<g, b, shm, s>>>(static_cast<P>(a)...);
}
#else  // ------------------------------------------------------------------------------- host build
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>
#if defined(__SANITIZE_THREAD__)
#define GPUHOST_TSAN 1
extern "C" {
void* __tsan_create_fiber(unsigned);
void __tsan_destroy_fiber(void*);
void* __tsan_get_current_fiber();
void __tsan_switch_to_fiber(void*, unsigned);
void __tsan_acquire(void*);
void __tsan_release(void*);
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}
#elif defined(__SANITIZE_ADDRESS__)
#define GPUHOST_ASAN 1
extern "C" {
void __sanitizer_start_switch_fiber(void**, const void*, size_t);
void __sanitizer_finish_switch_fiber(void*, const void**, size_t*);
}
#endif
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __align__(n) alignas(n)
#define __constant__ static
#define __shared__ thread_local /* block-scope: one copy per OS thread = per running block */
#define GPU_DYN_SHARED(T, name) T* name = reinterpret_cast<T*>(gpuhost::ctx().dyn)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct uint3 {
  unsigned x, y, z;
};
struct float2 {
  float x, y;
};
struct int2 {
  int x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct uchar3 {
  unsigned char x, y, z;
};
struct float3 {
  float x, y, z;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline thread_local uint3 threadIdx, blockIdx;
inline thread_local dim3 blockDim, gridDim;
constexpr int warpSize = 32;

#if defined(__x86_64__)  // callee-saved registers only: no signal-mask system call, unlike swapcontext
asm(R"(.pushsection .text
.weak gpuhost_switch
.type gpuhost_switch,@function
gpuhost_switch: pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
 movq %rsp,(%rdi); movq %rsi,%rsp
 popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp; ret
.size gpuhost_switch,.-gpuhost_switch
.popsection)");
#elif defined(__aarch64__)
asm(R"(.pushsection .text
.weak gpuhost_switch
.type gpuhost_switch,%function
gpuhost_switch: sub sp,sp,#160
 stp x19,x20,[sp]; stp x21,x22,[sp,#16]; stp x23,x24,[sp,#32]; stp x25,x26,[sp,#48]; stp x27,x28,[sp,#64]; stp x29,x30,[sp,#80]
 stp d8,d9,[sp,#96]; stp d10,d11,[sp,#112]; stp d12,d13,[sp,#128]; stp d14,d15,[sp,#144]
 mov x9,sp; str x9,[x0]; mov sp,x1
 ldp x19,x20,[sp]; ldp x21,x22,[sp,#16]; ldp x23,x24,[sp,#32]; ldp x25,x26,[sp,#48]; ldp x27,x28,[sp,#64]; ldp x29,x30,[sp,#80]
 ldp d8,d9,[sp,#96]; ldp d10,d11,[sp,#112]; ldp d12,d13,[sp,#128]; ldp d14,d15,[sp,#144]
 add sp,sp,#160; ret
.size gpuhost_switch,.-gpuhost_switch
.popsection)");
#else
#error "cuda_host.h: add gpuhost_switch for this CPU"
#endif
extern "C" void gpuhost_switch(void** save_sp, void* load_sp);

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
  unsigned char* dyn = nullptr;
  std::unique_ptr<unsigned char[]> dynbuf;
  int red_val = 0;
  const void* main_bottom = nullptr;
  size_t main_size = 0;
  void* main_san = nullptr;
  char sync_obj[2] = {0, 0};
  unsigned barrier_gen = 0;
  char* launch_obj = nullptr;
  ~Ctx();
};
struct Quiet {  // the emulator's own bookkeeping is serial; keep it out of the race detector's sight
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
    if (done == n) break;
    if (bar == n) {
      ++c.barrier_gen;
      for (auto& t : c.th) t.st = kReady;
      c.red_val = 0;
      for (auto& t : c.th) c.red_val += t.red;
      continue;
    }
    if (!progressed) {
      std::fprintf(stderr, "gpuhost: block (%u,%u,%u) stuck: %u of %u threads at __syncthreads, %u finished, %u in a warp collective\n",
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
inline unsigned env_u(const char* k, unsigned d) {
  const char* s = std::getenv(k);
  return s ? std::strtoul(s, nullptr, 10) : d;
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
    continue;  // (leaked: freeing would look like a race with the fiber's last access)
#endif
    std::free(f->stack);
    delete f;
  }
}
template <class F>
void run(dim3 g, dim3 b, size_t shm, F fn) {
  const unsigned nb = g.x * g.y * g.z, nt = b.x * b.y * b.z;
  if (!nb || !nt || nt > 1024 || b.z > 64 || g.y > 65535 || g.z > 65535 || shm > (227u << 10)) die("invalid launch configuration");
  if (ctx().cur) die("nested launch");
  std::vector<unsigned> border;
  make_order(border, nb, 7);
  std::atomic<unsigned> cursor{0};
  static char launch_obj;
  auto worker = [&](unsigned max_blocks, unsigned char* dyn) {
    Quiet q;
    Ctx& c = ctx();
    blockDim = b;
    gridDim = g;
    c.nthreads = nt;
    make_order(c.order, nt, 3);
    c.body = fn;
    c.launch_obj = &launch_obj;
    if (!dyn) {
      c.dynbuf.reset(new unsigned char[shm]);
      dyn = c.dynbuf.get();
    }  // exact size, so ASan sees overruns
    c.dyn = dyn;
#if GPUHOST_TSAN
    c.main_san = __tsan_get_current_fiber();
#endif
    for (unsigned i; max_blocks && (i = cursor.fetch_add(1, std::memory_order_relaxed)) < nb; --max_blocks) {
      unsigned k = border[i];
      blockIdx = {k % g.x, k / g.x % g.y, k / (g.x * g.y)};
      if (shm) std::memset(c.dyn, 0xA5, shm);  // dynamic shared memory starts as garbage, as on a GPU
      run_block(c);
    }
    c.cur = nullptr;
    c.body = nullptr;
  };
#if GPUHOST_TSAN  // one OS thread per block: fresh __shared__ storage, and no happens-before edge between blocks
  std::vector<std::unique_ptr<unsigned char[]>> dyn(nb);
  for (auto& d : dyn) d.reset(new unsigned char[shm]);
  for (unsigned i = 0; i < nb; ++i) std::thread(worker, 1u, dyn[i].get()).join();
  __tsan_acquire(&launch_obj);
#else
  unsigned nw = std::min(env_u("GPUHOST_THREADS", 1), nb);
  if (nw <= 1) return worker(~0u, nullptr);
  std::vector<std::thread> ts;
  for (unsigned i = 0; i < nw; ++i) ts.emplace_back(worker, ~0u, nullptr);
  for (auto& t : ts) t.join();
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

// ---- synchronisation and warp collectives
inline void __syncthreads() { gpuhost::block_barrier(); }
inline int __syncthreads_count(int p) { return gpuhost::block_barrier(p != 0); }
inline int __syncthreads_or(int p) { return gpuhost::block_barrier(p != 0) != 0; }
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __syncwarp(unsigned m = ~0u) { gpuhost::warp_exchange(m, 0); }
template <class T>
T gpuhost_pick(unsigned m, T v, unsigned src) {
  auto s = gpuhost::warp_exchange(m, gpuhost::bits(v));
  return gpuhost::unbits<T>(s[src]);
}
inline unsigned gpuhost_lane() { return gpuhost::ctx().tid & 31; }
template <class T>
T __shfl_sync(unsigned m, T v, int s, int w = 32) {
  unsigned l = gpuhost_lane();
  return gpuhost_pick(m, v, (l & ~(w - 1)) + (s & (w - 1)));
}
template <class T>
T __shfl_down_sync(unsigned m, T v, unsigned d, int w = 32) {
  unsigned l = gpuhost_lane();
  return gpuhost_pick(m, v, (l & (w - 1)) + d < unsigned(w) ? l + d : l);
}
template <class T>
T __shfl_up_sync(unsigned m, T v, unsigned d, int w = 32) {
  unsigned l = gpuhost_lane();
  return gpuhost_pick(m, v, (l & (w - 1)) >= d ? l - d : l);
}
template <class T>
T __shfl_xor_sync(unsigned m, T v, int x, int w = 32) {
  unsigned l = gpuhost_lane();
  unsigned s = l ^ x;
  return gpuhost_pick(m, v, (s & ~(w - 1)) == (l & ~(w - 1)) ? s : l);
}
inline unsigned __ballot_sync(unsigned m, int p) {
  auto s = gpuhost::warp_exchange(m, p != 0);
  unsigned r = 0, rem = gpuhost::ctx().nthreads - gpuhost::ctx().tid / 32 * 32;
  for (unsigned i = 0; i < std::min(32u, rem); ++i)
    if (m >> i & 1) r |= unsigned(s[i]) << i;
  return r;
}
inline int __any_sync(unsigned m, int p) { return __ballot_sync(m, p) != 0; }
inline int __all_sync(unsigned m, int p) { return __ballot_sync(m, !p) == 0; }
// ---- atomics (relaxed, as on the device)
template <class T>
using gpuhost_id = typename std::enable_if<true, T>::type;
template <class T>
T atomicCAS(T* p, gpuhost_id<T> e, gpuhost_id<T> d) {
  __atomic_compare_exchange_n(p, &e, d, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return e;
}
template <class T>
T atomicExch(T* p, gpuhost_id<T> v) {
  T o;
  __atomic_exchange(p, &v, &o, __ATOMIC_RELAXED);
  return o;
}
template <class T, class F>
T gpuhost_rmw(T* p, F f) {
  T o, n;
  __atomic_load(p, &o, __ATOMIC_RELAXED);
  do n = f(o);
  while (!__atomic_compare_exchange(p, &o, &n, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return o;
}
template <class T>
T atomicAdd(T* p, gpuhost_id<T> v) {
  if constexpr (std::is_integral_v<T>)
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
  else
    return gpuhost_rmw(p, [&](T o) { return T(o + v); });
}
template <class T>
T atomicMax(T* p, gpuhost_id<T> v) {
  static_assert(std::is_integral_v<T>, "");
  return gpuhost_rmw(p, [&](T o) { return std::max(o, v); });
}
template <class T>
T atomicMin(T* p, gpuhost_id<T> v) {
  static_assert(std::is_integral_v<T>, "");
  return gpuhost_rmw(p, [&](T o) { return std::min(o, v); });
}
template <class T>
T atomicOr(T* p, gpuhost_id<T> v) {
  return __atomic_fetch_or(p, v, __ATOMIC_RELAXED);
}
template <class T>
T atomicAnd(T* p, gpuhost_id<T> v) {
  return __atomic_fetch_and(p, v, __ATOMIC_RELAXED);
}
// ---- scalar intrinsics
using std::max;
using std::min;
inline int __float_as_int(float f) { return gpuhost::unbits<int>(gpuhost::bits(f)); }
inline float __int_as_float(int i) { return gpuhost::unbits<float>(gpuhost::bits(i)); }
inline unsigned __float_as_uint(float f) { return gpuhost::unbits<unsigned>(gpuhost::bits(f)); }
inline float __uint_as_float(unsigned i) { return gpuhost::unbits<float>(gpuhost::bits(i)); }
inline int __float2int_rn(float f) { return int(std::nearbyint(f)); }
inline int __float2int_rd(float f) { return int(std::floor(f)); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float a) { return 1.0f / std::sqrt(a); }
inline float __saturatef(float a) { return a < 0 || a != a ? 0.f : a > 1 ? 1.f : a; }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __clz(int v) { return v ? __builtin_clz(unsigned(v)) : 32; }
inline int __ffs(int v) { return __builtin_ffs(v); }
template <class T>
T __ldg(const T* p) {
  return *p;
}
// ---- half (storage + round-to-nearest-even conversion)
struct __half {
  uint16_t x;
};
inline __half __float2half_rn(float f) {
  uint32_t u = __float_as_uint(f), s = u >> 16 & 0x8000;
  u &= 0x7fffffff;
  if (u > 0x7f800000) return {uint16_t(0x7fff)};
  if (u >= 0x477ff000) return {uint16_t(s | 0x7c00)};
  if (u < 0x38800000) {
    float m = __uint_as_float(u) + 0.5f;
    return {uint16_t(s | (__float_as_uint(m) - 0x3f000000))};
  }
  u += 0xfff + (u >> 13 & 1);
  return {uint16_t(s | ((u - 0x38000000) >> 13))};
}
inline float __half2float(__half h) {
  uint32_t s = uint32_t(h.x & 0x8000) << 16, e = h.x >> 10 & 31, m = h.x & 1023;
  if (e == 31) return __uint_as_float(s | 0x7f800000 | m << 13);
  if (e) return __uint_as_float(s | (e + 112) << 23 | m << 13);
  float r = float(m) * 5.9604644775390625e-8f;
  return s ? -r : r;
}
inline __half __float2half(float f) { return __float2half_rn(f); }
// ---- the part of the runtime API that wrappers use
struct CUstream_st;
using cudaStream_t = CUstream_st*;
enum cudaError_t { cudaSuccess = 0, cudaErrorMemoryAllocation = 2 };
enum cudaMemcpyKind { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice, cudaMemcpyDefault };
template <class T>
cudaError_t cudaMalloc(T** p, size_t n) {
  *p = static_cast<T*>(std::aligned_alloc(256, (n + 255) / 256 * 256));
  if (*p) std::memset(static_cast<void*>(*p), 0xA5, n);
  return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}
inline cudaError_t cudaFree(void* p) {
  std::free(p);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* d, const void* s, size_t n, cudaMemcpyKind) {
  std::memcpy(d, s, n);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* d, const void* s, size_t n, cudaMemcpyKind, cudaStream_t = nullptr) {
  std::memcpy(d, s, n);
  return cudaSuccess;
}
inline cudaError_t cudaMemset(void* d, int v, size_t n) {
  std::memset(d, v, n);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* d, int v, size_t n, cudaStream_t = nullptr) {
  std::memset(d, v, n);
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t e) { return e ? "error" : "ok"; }
template <class... P, class... A>
inline void launch(void (*k)(P...), dim3 g, dim3 b, size_t shm, cudaStream_t, A... a) {
  gpuhost::run(g, b, shm, [=] { k(static_cast<P>(a)...); });
}
#endif
