#include "imkd/thread_pool.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "imkd/error.hpp"

namespace imkd {
namespace {
constexpr int kRangesPerThread = 4;  // more than one, so that a core in use by another process delays only its range
thread_local bool inside_pool = false;
}  // namespace

struct ThreadPool::State {
  std::vector<std::thread> workers;
  std::mutex caller;  // one parallel_for at a time
  std::mutex mutex;
  std::condition_variable wake, done;
  std::uint64_t generation = 0;  // of the job in call, context, count
  int busy = 0;                  // workers that have not finished the job
  bool stop = false;
  pid_t owner = getpid();

  void (*call)(void*, int, int) = nullptr;
  void* context = nullptr;
  int count = 0, ranges = 0;
  std::atomic<int> next{0};

  void work() {
    for (int i = next++; i < ranges; i = next++) {
      const int begin = static_cast<int>(static_cast<std::int64_t>(count) * i / ranges);
      const int end = static_cast<int>(static_cast<std::int64_t>(count) * (i + 1) / ranges);
      call(context, begin, end);
    }
  }

  void loop() {
    inside_pool = true;
    std::uint64_t last = 0;
    std::unique_lock<std::mutex> lock(mutex);
    while (true) {
      wake.wait(lock, [&] { return stop || generation != last; });
      if (stop) return;
      last = generation;
      lock.unlock();
      work();
      lock.lock();
      if (--busy == 0) done.notify_one();
    }
  }

  void end() {
    {
      std::lock_guard<std::mutex> lock(mutex);
      stop = true;
    }
    wake.notify_all();
    for (auto& worker : workers) worker.join();
  }
};

void ThreadPool::check(int threads, const std::string& where) {
  if (threads < 0 || threads > kMaxThreads)
    throw Error(Code::device_unavailable, std::to_string(threads) + " threads", where,
                "use 1 to " + std::to_string(kMaxThreads) + ", or 0 for one per core");
}

ThreadPool::ThreadPool(int threads) : state_(new State) {
  check(threads, "threads");
  if (threads == 0) threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  try {
    for (int i = 1; i < threads; ++i) state_->workers.emplace_back([state = state_.get()] { state->loop(); });
  } catch (const std::exception& error) {  // the process may start no more threads, or is out of memory
    const std::size_t started = state_->workers.size();
    state_->end();
    throw Error(Code::device_unavailable,
                "the system started " + std::to_string(started + 1) + " of " + std::to_string(threads) +
                    " threads: " + error.what(),
                "threads", "use fewer, or raise the limits of this process (ulimit -u, ulimit -v, the container's)");
  }
}

ThreadPool::~ThreadPool() {
  if (state_->owner != getpid()) {  // a forked child has no workers to join
    state_.release();
    return;
  }
  state_->end();
}

int ThreadPool::threads() const { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::run(int count, void (*call)(void*, int, int), void* context) {
  if (count <= 0) return;
  State& s = *state_;
  // Nested calls and forked children (data loader workers) run on their own thread.
  if (count == 1 || s.workers.empty() || inside_pool || s.owner != getpid()) return call(context, 0, count);
  std::lock_guard<std::mutex> caller(s.caller);
  {
    std::lock_guard<std::mutex> lock(s.mutex);
    s.call = call;
    s.context = context;
    s.count = count;
    s.ranges = std::min(count, threads() * kRangesPerThread);
    s.next = 0;
    s.busy = static_cast<int>(s.workers.size());
    ++s.generation;
  }
  s.wake.notify_all();
  inside_pool = true;
  s.work();
  inside_pool = false;
  std::unique_lock<std::mutex> lock(s.mutex);
  s.done.wait(lock, [&] { return s.busy == 0; });
}

}  // namespace imkd
