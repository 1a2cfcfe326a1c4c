#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "imkd/error.hpp"
#include "imkd/monitor.hpp"
#include "time_ns.hpp"

namespace imkd {
namespace {

std::int64_t steady_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

struct Watchdog::State {
  std::int64_t deadline;  // ns
  Missed missed;
  Clock clock;
  std::mutex mutex;
  std::condition_variable wake;
  std::int64_t beat_ns = 0, misses = 0;
  bool overdue = false, ends = false;
  std::thread timer;

  // ns; where the clock fails, more than the deadline.
  std::int64_t since_beat() {
    try {
      return minus_ns(clock(), beat_ns);
    } catch (...) {  // NOLINT: on the timer's thread there is nobody above to tell, and a miss is counted
      return deadline + 1;
    }
  }

  // ns that are left; 0 or less: a miss, told here.
  std::int64_t look() {
    std::unique_lock<std::mutex> lock(mutex);
    const std::int64_t since = since_beat();
    if (overdue) return deadline;
    if (since <= deadline) return deadline - since + 1;
    overdue = true, ++misses;
    lock.unlock();  // the callback may beat
    try {
      if (missed) missed(static_cast<double>(since) * 1e-9);
    } catch (...) {  // NOLINT: there is nobody above to tell, and the miss is counted
    }
    return 0;
  }

  void run() {
    constexpr std::int64_t kLongest = 100'000'000;  // ns asleep at most: an own clock may run faster than time
    while (true) {
      const std::int64_t left = std::clamp<std::int64_t>(look(), 0, kLongest);
      std::unique_lock<std::mutex> lock(mutex);
      if (!ends) wake.wait_for(lock, std::chrono::nanoseconds(left));  // woken for nothing, it looks again
      if (ends) return;
    }
  }
};

Watchdog::Watchdog(double deadline, Missed missed, Clock clock, bool timer) : state_(std::make_shared<State>()) {
  if (!(deadline > 0 && deadline <= 3600))
    throw Error(Code::spec_bad_value, "is out of range", "Watchdog, deadline", "up to 3600 s");
  State& s = *state_;
  s.deadline = to_ns(deadline), s.missed = std::move(missed), s.clock = clock ? std::move(clock) : steady_ns;
  s.beat_ns = s.clock();
  if (timer) s.timer = std::thread([held = state_] { held->run(); });
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    state_->ends = true;
  }
  state_->wake.notify_all();
  if (state_->timer.get_id() == std::this_thread::get_id())
    state_->timer.detach();  // destroyed by its own callback
  else if (state_->timer.joinable())
    state_->timer.join();
}

void Watchdog::beat() {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->beat_ns = state_->clock();
  if (state_->overdue) state_->wake.notify_all();  // the next deadline may be nearer than the timer's sleep
  state_->overdue = false;
}

bool Watchdog::overdue() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->overdue;
}

std::int64_t Watchdog::misses() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->misses;
}

void Watchdog::poll() { state_->look(); }

}  // namespace imkd
