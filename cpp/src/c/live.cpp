// The C ABI of the live input: synchronizer, monitor, watchdog.
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "c/handle.hpp"
#include "imkd/error.hpp"
#include "imkd/imkd.h"
#include "imkd/monitor.hpp"
#include "imkd/synchronizer.hpp"

using namespace imkd;
using namespace imkd::c;

namespace {

template <class Core>
struct LiveHandle : Handle {
  std::shared_ptr<Core> core;  // calls in progress on other threads own it while load replaces it
};

}  // namespace

struct imkd_synchronizer : LiveHandle<Synchronizer> {
  std::optional<LiveFrame> live;  // the result of the last pop, and below its C structs
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
std::shared_ptr<Core> core_of(const LiveHandle<Core>& handle) {
  std::shared_ptr<Core> core = std::atomic_load(&handle.core);
  if (!core)
    throw Error(Code::engine_unavailable, "nothing is loaded", "the handle", "call its _load or _start function first");
  return core;
}

std::int64_t time_of(std::uint32_t has_timestamp, std::int64_t timestamp_ns, const char* where) {
  if (!has_timestamp)
    throw Error(Code::frame_bad_time, "is 0, but a live item needs its own time", where,
                "set it to 1, and timestamp_ns");
  return timestamp_ns;
}

RadarSweep read_sweep(const imkd_sweep* input) {
  const imkd_sweep sweep = read(input, "imkd_sweep");
  const std::int64_t time = time_of(sweep.has_timestamp, sweep.timestamp_ns, "imkd_sweep.has_timestamp");
  return {sweep.radar, time, sweep.points, sweep.count, read_ego(sweep.T_world_ego, nullptr).T_world_ego};
}

// Calls release when the last copy is destroyed, or at once if out of memory for an owner.
std::shared_ptr<const void> owner_of(imkd_release release, void* user) {
  static const char lent = 0;
  if (!release) return {};
  return {&lent, [release, user](const void*) { release(user); }};
}

// Runs push(core, owner) -> Pushed. The memory is released in every case.
template <class Push>
int push_call(imkd_synchronizer* handle, imkd_release release, void* user, std::int32_t* pushed, Push&& push) noexcept {
  if (!handle && release) release(user);
  return call(handle, [&](imkd_synchronizer& h) {
    std::shared_ptr<const void> owner = owner_of(release, user);
    const std::shared_ptr<Synchronizer> core = core_of(h);
    const Pushed result = push(*core, owner);
    if (pushed) *pushed = static_cast<std::int32_t>(result);
  });
}

imkd_image image_of(const ImageView& view, std::int64_t timestamp_ns, const std::optional<Mat4>& T_world_ego) {
  imkd_image image{};
  image.struct_size = sizeof image;
  image.width = view.width;
  image.height = view.height;
  image.has_timestamp = 1;
  image.timestamp_ns = timestamp_ns;
  image.data = view.data;
  image.row_stride = view.row_stride;
  image.pixel_stride = view.pixel_stride;
  image.channel_stride = view.channel_stride;
  image.chroma = view.chroma;
  image.chroma_stride = view.chroma_stride;
  image.yuv = static_cast<std::uint32_t>(view.yuv);
  if (T_world_ego) image.T_world_ego = T_world_ego->data();
  return image;
}

imkd_sweep sweep_of(const RadarSweep& sweep) {
  const double* pose = sweep.T_world_ego ? sweep.T_world_ego->data() : nullptr;
  return {sizeof(imkd_sweep), sweep.radar, sweep.count, 1, sweep.timestamp_ns, sweep.points, pose};
}

const imkd_frames* frames_of(imkd_synchronizer& h) {
  const FrameSet& f = h.live->frames;
  for (std::size_t i = 0; i < f.cameras.size(); ++i)
    h.images.push_back(image_of(f.cameras[i], f.camera_timestamps_ns[i], f.camera_T_world_ego[i]));
  for (const RadarSweep& sweep : f.sweeps) h.sweeps.push_back(sweep_of(sweep));
  h.frames = {};
  h.frames.struct_size = sizeof h.frames;
  h.frames.timestamp_ns = f.timestamp_ns;
  h.frames.image_count = static_cast<std::uint32_t>(h.images.size());
  h.frames.images = h.images.data();
  h.frames.sweep_count = static_cast<std::uint32_t>(h.sweeps.size());
  h.frames.sweeps = h.sweeps.data();
  if (f.ego.T_world_ego) h.frames.T_world_ego = f.ego.T_world_ego->data();
  if (f.ego.twist) h.frames.twist = f.ego.twist->data();
  return &h.frames;
}

template <class AnyHandle>
AnyHandle* new_handle() noexcept {
  try {
    return new AnyHandle;
  } catch (...) {
    return nullptr;
  }
}

SynchronizerOptions read_options(const imkd_synchronizer_options* input) {
  SynchronizerOptions options;
  if (!input) return options;
  const imkd_synchronizer_options values = read(input, "imkd_synchronizer_options");
  check_reserved(values.reserved, "imkd_synchronizer_options.reserved");
  if (values.reference) options.reference = values.reference;
  set_unless_0(options.tolerance, values.tolerance);
  set_unless_0(options.timeout, values.timeout);
  set_unless_0(options.max_delay, values.max_delay);
  set_unless_0(options.max_future, values.max_future);
  set_unless_0(options.lost_after, values.lost_after);
  set_unless_0<int>(options.max_images, values.max_images);
  set_unless_0<int>(options.max_sweeps, values.max_sweeps);
  return options;
}

MonitorOptions read_options(const imkd_monitor_options* input) {
  MonitorOptions options;
  if (!input) return options;
  const imkd_monitor_options values = read(input, "imkd_monitor_options");
  set_unless_0(options.lost_after, values.lost_after);
  set_unless_0<int>(options.frozen_after, values.frozen_after);
  return options;
}

}  // namespace

// ---- synchronizer ----
imkd_synchronizer* imkd_synchronizer_new(void) { return new_handle<imkd_synchronizer>(); }
void imkd_synchronizer_destroy(imkd_synchronizer* handle) { destroy(handle); }
const char* imkd_synchronizer_error(const imkd_synchronizer* handle) { return error_of(handle); }

int imkd_synchronizer_load(imkd_synchronizer* handle, const char* model, const char* rig,
                           const imkd_synchronizer_options* options) {
  return exclusive_call(handle, [&](imkd_synchronizer& h) {
    const SynchronizerOptions core_options = read_options(options);
    const ModelSpec spec = load_spec(model);
    std::atomic_store(&h.core, std::make_shared<Synchronizer>(load_rig(rig), spec, core_options));
  });
}

int imkd_synchronizer_push_camera(imkd_synchronizer* handle, std::int32_t camera, const imkd_image* image,
                                  std::int64_t now_ns, imkd_release release, void* user, std::int32_t* pushed) {
  return push_call(handle, release, user, pushed, [&](Synchronizer& core, std::shared_ptr<const void>& owner) {
    const imkd_image input = read(image, "imkd_image");
    const std::int64_t time = time_of(input.has_timestamp, input.timestamp_ns, "imkd_image.has_timestamp");
    return core.push_camera(camera, image_view(input), time, now_ns, std::move(owner));
  });
}

int imkd_synchronizer_push_radar(imkd_synchronizer* handle, const imkd_sweep* sweep, std::int64_t now_ns,
                                 imkd_release release, void* user, std::int32_t* pushed) {
  return push_call(handle, release, user, pushed, [&](Synchronizer& core, std::shared_ptr<const void>& owner) {
    return core.push_radar(read_sweep(sweep), now_ns, std::move(owner));
  });
}

int imkd_synchronizer_push_ego(imkd_synchronizer* handle, const double* T_world_ego, const double* twist,
                               std::int64_t timestamp_ns, std::int64_t now_ns, std::int32_t* pushed) {
  return push_call(handle, nullptr, nullptr, pushed, [&](Synchronizer& core, std::shared_ptr<const void>&) {
    return core.push_ego(read_ego(T_world_ego, twist), timestamp_ns, now_ns);
  });
}

int imkd_synchronizer_pop(imkd_synchronizer* handle, std::int64_t now_ns, const imkd_frames** frames,
                          std::uint32_t* complete) {
  return exclusive_call(handle, [&](imkd_synchronizer& h) {
    if (!frames) refuse("is NULL", "frames", "give the address of a pointer");
    const std::shared_ptr<Synchronizer> core = core_of(h);
    *frames = nullptr;
    h.images.clear();
    h.sweeps.clear();
    h.live.reset();
    h.live = core->pop(now_ns);
    if (complete) *complete = h.live && h.live->complete;
    if (h.live) *frames = frames_of(h);
  });
}

int imkd_synchronizer_reset(imkd_synchronizer* handle) {
  return call(handle, [](imkd_synchronizer& h) { core_of(h)->reset(); });
}

int imkd_synchronizer_counts(const imkd_synchronizer* handle, imkd_counts* counts) {
  return call(handle, [&](const imkd_synchronizer& h) {
    check_output(counts, "imkd_counts");
    const SynchronizerCounts c = core_of(h)->counts();
    write({0, 0, c.kept, c.late, c.duplicate, c.future, c.invalid, c.complete, c.incomplete, c.dropped, c.expired,
           c.restarts},
          counts);
  });
}

// ---- monitor ----
imkd_monitor* imkd_monitor_new(void) { return new_handle<imkd_monitor>(); }
void imkd_monitor_destroy(imkd_monitor* handle) { destroy(handle); }
const char* imkd_monitor_error(const imkd_monitor* handle) { return error_of(handle); }

int imkd_monitor_load(imkd_monitor* handle, const char* model, const char* rig, const imkd_monitor_options* options) {
  return exclusive_call(handle, [&](imkd_monitor& h) {
    const MonitorOptions core_options = read_options(options);
    const ModelSpec spec = load_spec(model);
    std::atomic_store(&h.core, std::make_shared<Monitor>(load_rig(rig), spec, core_options));
  });
}

int imkd_monitor_observe_camera(imkd_monitor* handle, std::int32_t camera, const imkd_image* image,
                                std::int64_t now_ns) {
  return call(handle, [&](imkd_monitor& h) {
    const imkd_image input = read(image, "imkd_image");
    const std::int64_t time = time_of(input.has_timestamp, input.timestamp_ns, "imkd_image.has_timestamp");
    core_of(h)->observe_camera(camera, image_view(input), time, now_ns);
  });
}

int imkd_monitor_observe_radar(imkd_monitor* handle, const imkd_sweep* sweep, std::int64_t now_ns) {
  return call(handle, [&](imkd_monitor& h) { core_of(h)->observe_radar(read_sweep(sweep), now_ns); });
}

int imkd_monitor_check(imkd_monitor* handle, std::int64_t now_ns, imkd_health* health) {
  return exclusive_call(handle, [&](imkd_monitor& h) {
    check_output(health, "imkd_health");
    h.health = core_of(h)->check(now_ns);
    imkd_health all{};
    all.mode = static_cast<std::int32_t>(h.health.mode);
    all.camera_count = static_cast<std::uint32_t>(h.health.cameras.size());
    all.radar_count = static_cast<std::uint32_t>(h.health.radars.size());
    all.camera_states = reinterpret_cast<const std::uint8_t*>(h.health.cameras.data());
    all.radar_states = reinterpret_cast<const std::uint8_t*>(h.health.radars.data());
    write(all, health);
  });
}

int imkd_monitor_reset(imkd_monitor* handle) {
  return call(handle, [](imkd_monitor& h) { core_of(h)->reset(); });
}

// ---- watchdog ----
imkd_watchdog* imkd_watchdog_new(void) { return new_handle<imkd_watchdog>(); }
void imkd_watchdog_destroy(imkd_watchdog* handle) { destroy(handle); }
const char* imkd_watchdog_error(const imkd_watchdog* handle) { return error_of(handle); }

int imkd_watchdog_start(imkd_watchdog* handle, const imkd_watchdog_options* options) {
  // missed() may destroy the handle, so the first miss waits for the end of this call.
  std::shared_ptr<std::mutex> starting;
  std::unique_lock<std::mutex> until_return;
  return exclusive_call(handle, [&](imkd_watchdog& h) {
    const imkd_watchdog_options values = read(options, "imkd_watchdog_options");
    Watchdog::Missed missed;
    Watchdog::Clock clock;
    if (values.missed) {
      starting = std::make_shared<std::mutex>();
      until_return = std::unique_lock<std::mutex>(*starting);
      missed = [starting, function = values.missed, user = values.user](double seconds) {
        starting->lock();
        starting->unlock();
        function(seconds, user);
      };
    }
    if (values.clock) clock = [function = values.clock, user = values.user] { return function(user); };
    const bool timer = !values.without_timer;
    std::atomic_store(&h.core, std::make_shared<Watchdog>(values.deadline, std::move(missed), std::move(clock), timer));
  });
}

int imkd_watchdog_beat(imkd_watchdog* handle) {
  return call(handle, [](imkd_watchdog& h) { core_of(h)->beat(); });
}

int imkd_watchdog_poll(imkd_watchdog* handle) {
  return call(handle, [](imkd_watchdog& h) { core_of(h)->poll(); });
}

int imkd_watchdog_state(const imkd_watchdog* handle, std::uint32_t* overdue, std::int64_t* misses) {
  return call(handle, [&](const imkd_watchdog& h) {
    const std::shared_ptr<Watchdog> core = core_of(h);
    if (overdue) *overdue = core->overdue();
    if (misses) *misses = core->misses();
  });
}
