#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#include "imkd/monitor.hpp"
#include "live_options.hpp"
#include "own_process.hpp"
#include "time_ns.hpp"

namespace imkd {
namespace {

std::int64_t steady_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

struct Watchdog::State {
  OwnProcess process;
  std::int64_t deadline;  // ns
  Missed missed;
  Clock clock;
  std::mutex mutex;
  std::condition_variable wake;
  std::int64_t beat_ns = 0, misses = 0;
  bool overdue = false, stopping = false;
  std::thread timer;

  // ns; more than the deadline where the clock throws.
  std::int64_t since_beat() {
    try {
      return minus_ns(clock(), beat_ns);
    } catch (...) {  // NOLINT: the timer's thread has no caller to report to; the miss is counted
      return deadline + 1;
    }
  }

  // The ns left until the deadline. 0 after a miss, which is reported here.
  std::int64_t check() {
    std::unique_lock<std::mutex> lock(mutex);
    const std::int64_t since = since_beat();
    if (overdue) return deadline;
    if (since <= deadline) return minus_ns(deadline + 1, since);
    overdue = true;
    ++misses;
    lock.unlock();  // the callback may call beat()
    try {
      if (missed) missed(to_seconds(since));
    } catch (...) {  // NOLINT: the timer's thread has no caller to report to; the miss is counted
    }
    return 0;
  }

  void run() {
    constexpr std::int64_t kMaxSleep = 100'000'000;  // ns: a custom clock may run faster than real time
    while (true) {
      const std::int64_t left = std::clamp<std::int64_t>(check(), 0, kMaxSleep);
      std::unique_lock<std::mutex> lock(mutex);
      if (!stopping) wake.wait_for(lock, std::chrono::nanoseconds(left));  // a spurious wake-up only checks again
      if (stopping) return;
    }
  }
};

Watchdog::Watchdog(double deadline, Missed missed, Clock clock, bool timer) : state_(std::make_shared<State>()) {
  if (!(deadline > 0 && deadline <= 3600))
    refuse_option("Watchdog, deadline", deadline, "more than 0 s, at most 3600 s");
  State& s = *state_;
  s.deadline = to_ns(deadline);
  s.missed = std::move(missed);
  s.clock = clock ? std::move(clock) : steady_ns;
  s.beat_ns = s.clock();
  const std::lock_guard<std::mutex> lock(
      s.mutex);  // the timer, too, reads State::timer: where it destroys the watchdog
  try {
    if (timer) s.timer = std::thread([state = state_] { state->run(); });
  } catch (const std::system_error& error) {
    throw Error(Code::device_unavailable, std::string("the system started no thread: ") + error.what(), "Watchdog",
                "raise the limits of this process (ulimit -u, the container's), or leave out the timer and call poll");
  }
}

Watchdog::~Watchdog() {
  if (!state_->process.here()) {  // a forked child has no timer to stop
    new std::shared_ptr<State>(std::move(state_));
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    state_->stopping = true;
  }
  state_->wake.notify_all();
  if (state_->timer.get_id() == std::this_thread::get_id())
    state_->timer.detach();  // destroyed by its own callback
  else if (state_->timer.joinable())
    state_->timer.join();
}

void Watchdog::beat() {
  state_->process.require("Watchdog");
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->beat_ns = state_->clock();
  if (state_->overdue) state_->wake.notify_all();  // the new deadline may be earlier than the end of the timer's sleep
  state_->overdue = false;
}

bool Watchdog::overdue() const {
  state_->process.require("Watchdog");
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->overdue;
}

std::int64_t Watchdog::misses() const {
  state_->process.require("Watchdog");
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->misses;
}

void Watchdog::poll() {
  state_->process.require("Watchdog");
  state_->check();
}

}  // namespace imkd
