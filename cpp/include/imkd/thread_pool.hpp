// A pool of a fixed number of threads; parallel_for splits [0, count) into contiguous ranges and allocates nothing.
#pragma once
#include <memory>
#include <string>
#include <type_traits>

namespace imkd {

class ThreadPool {
 public:
  static constexpr int kMaxThreads = 1024;
  // Throws Error device_unavailable unless threads is from 0 to kMaxThreads.
  static void check(int threads, const std::string& where);
  // 0: one per core; 1: the caller's thread. Throws as check, and where the system does not start as many threads.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  int threads() const;
  // Calls body(begin, end) once per range, on several threads; body must not throw.
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
