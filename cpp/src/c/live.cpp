// The C ABI of live input: synchronizer, monitor, watchdog.
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "c/handle.hpp"
#include "imkd/bundle.hpp"
#include "imkd/error.hpp"
#include "imkd/imkd.h"
#include "imkd/monitor.hpp"
#include "imkd/synchronizer.hpp"

using namespace imkd;
using namespace imkd::c;

namespace {

template <class Core>
struct LiveHandle : Handle {
  std::shared_ptr<Core> core;  // calls under way on other threads hold it while load puts another in its place
};

}  // namespace

struct imkd_synchronizer : LiveHandle<Synchronizer> {
  std::optional<LiveFrame> live;  // what the last pop gave, and below the same in C
  std::vector<imkd_image> images;
  std::vector<imkd_sweep> sweeps;
  imkd_frames frames{};
};

struct imkd_monitor : LiveHandle<Monitor> {
  Health health;  // of the last check
};

struct imkd_watchdog : LiveHandle<Watchdog> {};

namespace {

static_assert(static_cast<int>(Pushed::kept) == IMKD_PUSHED_KEPT &&
              static_cast<int>(Pushed::late) == IMKD_PUSHED_LATE &&
              static_cast<int>(Pushed::duplicate) == IMKD_PUSHED_DUPLICATE &&
              static_cast<int>(Pushed::future) == IMKD_PUSHED_FUTURE &&
              static_cast<int>(Pushed::invalid) == IMKD_PUSHED_INVALID);
static_assert(sizeof(Mat4) == 16 * sizeof(double) && sizeof(Vec3) == 3 * sizeof(double) && sizeof(SensorState) == 1);

template <class Core>
std::shared_ptr<Core> loaded(const LiveHandle<Core>& handle) {
  std::shared_ptr<Core> core = std::atomic_load(&handle.core);
  if (!core) throw Error(Code::engine_unavailable, "nothing is loaded", "the handle", "call its load or start");
  return core;
}

ModelSpec spec_of(const char* text) {
  if (!text)
    throw Error(Code::bundle_missing, "is NULL", "model", "give the path of a folder NAME.imkd, or a spec's JSON");
  return text[0] == '{' ? ModelSpec::from_json(text) : Bundle::load(text).spec;
}

template <class Number>
void choose(Number& chosen, Number given) {  // 0 is the default
  if (given != 0) chosen = given;
}

std::int64_t time_of(std::uint32_t has_timestamp, std::int64_t timestamp_ns, const char* where) {
  if (!has_timestamp)
    throw Error(Code::frame_bad_time, "a live item needs its time", where, "set has_timestamp and timestamp_ns");
  return timestamp_ns;
}

// What is not a pose is for the synchronizer to tell.
Ego motion(const double* T_world_ego, const double* twist) {
  Ego ego;
  if (T_world_ego) std::memcpy(ego.T_world_ego.emplace().data(), T_world_ego, sizeof(Mat4));
  if (twist) std::memcpy(ego.twist.emplace().data(), twist, sizeof(Vec3));
  return ego;
}

RadarSweep sweep_of(const imkd_sweep* given) {
  const imkd_sweep sweep = read(given, "imkd_sweep");
  const std::int64_t time = time_of(sweep.has_timestamp, sweep.timestamp_ns, "imkd_sweep.has_timestamp");
  return {sweep.radar, time, sweep.points, sweep.count, motion(sweep.T_world_ego, nullptr).T_world_ego};
}

// Calls release when the last copy goes, or at once where there is no memory for an owner.
std::shared_ptr<const void> owner_of(imkd_release release, void* user) {
  static const char lent = 0;
  if (!release) return {};
  return {&lent, [release, user](const void*) { release(user); }};
}

// push(core, owner) -> Pushed, with the owner let go of in every case.
template <class Push>
int pushing(imkd_synchronizer* handle, imkd_release release, void* user, std::int32_t* pushed, Push&& push) noexcept {
  if (!handle && release) release(user);
  return attempt(handle, [&](imkd_synchronizer& h) {
    std::shared_ptr<const void> owner = owner_of(release, user);
    const std::shared_ptr<Synchronizer> core = loaded(h);
    const Pushed became = push(*core, owner);
    if (pushed) *pushed = static_cast<std::int32_t>(became);
  });
}

imkd_image image_of(const ImageView& view, std::int64_t timestamp_ns) {
  imkd_image image{};
  image.struct_size = sizeof image;
  image.width = view.width, image.height = view.height;
  image.has_timestamp = 1, image.timestamp_ns = timestamp_ns;
  image.data = view.data;
  image.row_stride = view.row_stride, image.pixel_stride = view.pixel_stride,
  image.channel_stride = view.channel_stride;
  image.chroma = view.chroma, image.chroma_stride = view.chroma_stride,
  image.yuv = static_cast<std::uint32_t>(view.yuv);
  return image;
}

imkd_sweep sweep_of(const RadarSweep& sweep) {
  const double* pose = sweep.T_world_ego ? sweep.T_world_ego->data() : nullptr;
  return {sizeof(imkd_sweep), sweep.radar, sweep.count, 1, sweep.timestamp_ns, sweep.points, pose};
}

const imkd_frames* frames_of(imkd_synchronizer& h) {
  const FrameSet& f = h.live->frames;
  for (std::size_t i = 0; i < f.cameras.size(); ++i)
    h.images.push_back(image_of(f.cameras[i], f.camera_timestamps_ns[i]));
  for (const RadarSweep& sweep : f.sweeps) h.sweeps.push_back(sweep_of(sweep));
  h.frames = {};
  h.frames.struct_size = sizeof h.frames;
  h.frames.timestamp_ns = f.timestamp_ns;
  h.frames.image_count = static_cast<std::uint32_t>(h.images.size()), h.frames.images = h.images.data();
  h.frames.sweep_count = static_cast<std::uint32_t>(h.sweeps.size()), h.frames.sweeps = h.sweeps.data();
  if (f.ego.T_world_ego) h.frames.T_world_ego = f.ego.T_world_ego->data();
  if (f.ego.twist) h.frames.twist = f.ego.twist->data();
  return &h.frames;
}

template <class Given>
Given* made() noexcept {
  try {
    return new Given;
  } catch (...) {
    return nullptr;
  }
}

}  // namespace

// ---- synchronizer ----
imkd_synchronizer* imkd_synchronizer_new(void) { return made<imkd_synchronizer>(); }
void imkd_synchronizer_destroy(imkd_synchronizer* handle) { delete handle; }
const char* imkd_synchronizer_error(const imkd_synchronizer* handle) { return error_of(handle); }

int imkd_synchronizer_load(imkd_synchronizer* handle, const char* model, const char* rig,
                           const imkd_synchronizer_options* options) {
  return in_turn(handle, [&](imkd_synchronizer& h) {
    SynchronizerOptions chosen;
    if (options) {
      const imkd_synchronizer_options given = read(options, "imkd_synchronizer_options");
      check_reserved(given.reserved, "imkd_synchronizer_options.reserved");
      if (given.reference) chosen.reference = given.reference;
      choose(chosen.tolerance, given.tolerance), choose(chosen.timeout, given.timeout),
          choose(chosen.max_delay, given.max_delay);
      choose(chosen.max_future, given.max_future), choose(chosen.lost_after, given.lost_after);
      choose<int>(chosen.max_images, given.max_images), choose<int>(chosen.max_sweeps, given.max_sweeps);
    }
    const ModelSpec spec = spec_of(model);
    std::atomic_store(&h.core, std::make_shared<Synchronizer>(rig_of(rig), spec, chosen));
  });
}

int imkd_synchronizer_push_camera(imkd_synchronizer* handle, std::int32_t camera, const imkd_image* image,
                                  std::int64_t now_ns, imkd_release release, void* user, std::int32_t* pushed) {
  return pushing(handle, release, user, pushed, [&](Synchronizer& core, std::shared_ptr<const void>& owner) {
    const imkd_image given = read(image, "imkd_image");
    const std::int64_t time = time_of(given.has_timestamp, given.timestamp_ns, "imkd_image.has_timestamp");
    return core.push_camera(camera, view(given), time, now_ns, std::move(owner));
  });
}

int imkd_synchronizer_push_radar(imkd_synchronizer* handle, const imkd_sweep* sweep, std::int64_t now_ns,
                                 imkd_release release, void* user, std::int32_t* pushed) {
  return pushing(handle, release, user, pushed, [&](Synchronizer& core, std::shared_ptr<const void>& owner) {
    return core.push_radar(sweep_of(sweep), now_ns, std::move(owner));
  });
}

int imkd_synchronizer_push_ego(imkd_synchronizer* handle, const double* T_world_ego, const double* twist,
                               std::int64_t timestamp_ns, std::int64_t now_ns, std::int32_t* pushed) {
  return pushing(handle, nullptr, nullptr, pushed, [&](Synchronizer& core, std::shared_ptr<const void>&) {
    return core.push_ego(motion(T_world_ego, twist), timestamp_ns, now_ns);
  });
}

int imkd_synchronizer_pop(imkd_synchronizer* handle, std::int64_t now_ns, const imkd_frames** frames,
                          std::uint32_t* complete) {
  return in_turn(handle, [&](imkd_synchronizer& h) {
    if (!frames) refuse("is NULL", "frames", "give the address of a pointer");
    const std::shared_ptr<Synchronizer> core = loaded(h);
    *frames = nullptr;
    h.images.clear(), h.sweeps.clear(), h.live.reset();
    h.live = core->pop(now_ns);
    if (complete) *complete = h.live && h.live->complete;
    if (h.live) *frames = frames_of(h);
  });
}

int imkd_synchronizer_reset(imkd_synchronizer* handle) {
  return attempt(handle, [](imkd_synchronizer& h) { loaded(h)->reset(); });
}

int imkd_synchronizer_counts(const imkd_synchronizer* handle, imkd_counts* counts) {
  return attempt(handle, [&](const imkd_synchronizer& h) {
    check_room(counts, "imkd_counts");
    const SynchronizerCounts c = loaded(h)->counts();
    fill({0, 0, c.kept, c.late, c.duplicate, c.future, c.invalid, c.complete, c.incomplete, c.dropped, c.expired,
          c.restarts},
         counts);
  });
}

// ---- monitor ----
imkd_monitor* imkd_monitor_new(void) { return made<imkd_monitor>(); }
void imkd_monitor_destroy(imkd_monitor* handle) { delete handle; }
const char* imkd_monitor_error(const imkd_monitor* handle) { return error_of(handle); }

int imkd_monitor_load(imkd_monitor* handle, const char* model, const char* rig, const imkd_monitor_options* options) {
  return in_turn(handle, [&](imkd_monitor& h) {
    MonitorOptions chosen;
    if (options) {
      const imkd_monitor_options given = read(options, "imkd_monitor_options");
      choose(chosen.lost_after, given.lost_after), choose<int>(chosen.frozen_after, given.frozen_after);
    }
    const ModelSpec spec = spec_of(model);
    std::atomic_store(&h.core, std::make_shared<Monitor>(rig_of(rig), spec, chosen));
  });
}

int imkd_monitor_observe_camera(imkd_monitor* handle, std::int32_t camera, const imkd_image* image,
                                std::int64_t now_ns) {
  return attempt(handle, [&](imkd_monitor& h) {
    const imkd_image given = read(image, "imkd_image");
    const std::int64_t time = time_of(given.has_timestamp, given.timestamp_ns, "imkd_image.has_timestamp");
    loaded(h)->observe_camera(camera, view(given), time, now_ns);
  });
}

int imkd_monitor_observe_radar(imkd_monitor* handle, const imkd_sweep* sweep, std::int64_t now_ns) {
  return attempt(handle, [&](imkd_monitor& h) { loaded(h)->observe_radar(sweep_of(sweep), now_ns); });
}

int imkd_monitor_check(imkd_monitor* handle, std::int64_t now_ns, imkd_health* health) {
  return in_turn(handle, [&](imkd_monitor& h) {
    check_room(health, "imkd_health");
    h.health = loaded(h)->check(now_ns);
    imkd_health all{};
    all.mode = static_cast<std::int32_t>(h.health.mode);
    all.camera_count = static_cast<std::uint32_t>(h.health.cameras.size());
    all.radar_count = static_cast<std::uint32_t>(h.health.radars.size());
    all.camera_states = reinterpret_cast<const std::uint8_t*>(h.health.cameras.data());
    all.radar_states = reinterpret_cast<const std::uint8_t*>(h.health.radars.data());
    fill(all, health);
  });
}

int imkd_monitor_reset(imkd_monitor* handle) {
  return attempt(handle, [](imkd_monitor& h) { loaded(h)->reset(); });
}

// ---- watchdog ----
imkd_watchdog* imkd_watchdog_new(void) { return made<imkd_watchdog>(); }
void imkd_watchdog_destroy(imkd_watchdog* handle) { delete handle; }
const char* imkd_watchdog_error(const imkd_watchdog* handle) { return error_of(handle); }

int imkd_watchdog_start(imkd_watchdog* handle, const imkd_watchdog_options* options) {
  return in_turn(handle, [&](imkd_watchdog& h) {
    const imkd_watchdog_options given = read(options, "imkd_watchdog_options");
    Watchdog::Missed missed;
    Watchdog::Clock clock;
    if (given.missed) missed = [call = given.missed, user = given.user](double seconds) { call(seconds, user); };
    if (given.clock) clock = [call = given.clock, user = given.user] { return call(user); };
    std::atomic_store(
        &h.core, std::make_shared<Watchdog>(given.deadline, std::move(missed), std::move(clock), !given.without_timer));
  });
}

int imkd_watchdog_beat(imkd_watchdog* handle) {
  return attempt(handle, [](imkd_watchdog& h) { loaded(h)->beat(); });
}

int imkd_watchdog_poll(imkd_watchdog* handle) {
  return attempt(handle, [](imkd_watchdog& h) { loaded(h)->poll(); });
}

int imkd_watchdog_state(const imkd_watchdog* handle, std::uint32_t* overdue, std::int64_t* misses) {
  return attempt(handle, [&](const imkd_watchdog& h) {
    const std::shared_ptr<Watchdog> core = loaded(h);
    if (overdue) *overdue = core->overdue();
    if (misses) *misses = core->misses();
  });
}
