// A fixed pool; parallel_for splits [0, count) into contiguous ranges and allocates nothing.
#pragma once
#include <memory>
#include <string>
#include <type_traits>

namespace imkd {

class ThreadPool {
 public:
  static constexpr int kMaxThreads = 1024;
  static void check(int threads,
                    const std::string& where);  // throws Error device_unavailable unless from 0 to kMaxThreads
  // 0: one per core; 1: run on the caller's thread. Throws as check does, and where the system gives fewer threads.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  int threads() const;
  // body(begin, end) is called once per range, on several threads; it must not throw.
  template <class Body>
  void parallel_for(int count, Body&& body) {
    run(
        count,
        [](void* context, int begin, int end) { (*static_cast<std::remove_reference_t<Body>*>(context))(begin, end); },
        &body);
  }

 private:
  void run(int count, void (*call)(void*, int, int), void* context);
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace imkd
