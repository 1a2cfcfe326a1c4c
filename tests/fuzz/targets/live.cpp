// Synchronizer, monitor and watchdog: pushes, pops and resets with any times, in any order. What the synchronizer hands
// out, the detector takes.
#include "fakes.hpp"
#include "imkd/monitor.hpp"
#include "imkd/synchronizer.hpp"
#include "sensors.hpp"

using namespace imkd;
using fuzz::Input;

namespace {

struct Live {
  SensorRig rig = fakes::small_rig();
  SynchronizerOptions options;
  MonitorOptions monitor_options;
  std::unique_ptr<Synchronizer> synchronizer;
  std::unique_ptr<Monitor> monitor;
  std::unique_ptr<Detector> detector;
  std::int64_t now = 1'000'000'000;
  std::int64_t pushed = 0;

  explicit Live(Input& input) {
    if (input.below(4) == 0) {
      const char* const references[] = {"", "A_FRONT", "B_BACK", "R_FRONT", "R_REAR", "none"};
      options.reference = references[input.below(6)];
      for (double* one : {&options.tolerance, &options.timeout, &options.max_delay, &options.max_future,
                          &options.lost_after, &monitor_options.lost_after})
        if (input.flag()) *one = input.number();
      options.max_images = input.below(12) - 1;
      options.max_sweeps = input.below(12) - 1;
      monitor_options.frozen_after = input.below(5);
    }
    synchronizer = std::make_unique<Synchronizer>(rig, fakes::small_spec(), options);
    monitor = std::make_unique<Monitor>(rig, fakes::small_spec(), monitor_options);
  }

  void infer(const FrameSet& frames) {  // an Error is a finding
    if (!detector) {                    // most inputs pop no frame, and to make a detector takes half of their time
      DetectorOptions one_thread;
      one_thread.threads = 1;
      detector =
          std::make_unique<Detector>(fakes::small_spec(), rig, fakes::camera_engine(), fakes::bev_engine(), one_thread);
    }
    detector->infer(frames);
  }

  void push_camera(Input& input, fuzz::Sensors& sensors) {
    const int camera = input.below(16) ? input.below(2) : input.value<std::int8_t>();
    const ImageView image = sensors.image(input, rig.cameras[0]);
    const std::int64_t time = input.time(now);
    fuzz::accepted([&] { monitor->observe_camera(camera, image, time, now); });
    pushed += fuzz::accepted([&] { synchronizer->push_camera(camera, image, time, now); });
  }
  void push_radar(Input& input, fuzz::Sensors& sensors) {
    const RadarSweep sweep = sensors.sweep(input, rig.radars.size(), now);
    fuzz::accepted([&] { monitor->observe_radar(sweep, now); });
    pushed += fuzz::accepted([&] { synchronizer->push_radar(sweep, now); });
  }
  void push_ego(Input& input) {
    const Ego ego = input.ego();
    synchronizer->push_ego(ego, input.time(now), now);
    ++pushed;
  }
  void pop() {
    while (const std::optional<LiveFrame> frame = synchronizer->pop(now)) {
      fuzz::require(frame->frames.cameras.size() == rig.cameras.size(), "a frame has a place for every camera");
      infer(frame->frames);
    }
    const SynchronizerCounts c = synchronizer->counts();
    fuzz::require(c.kept + c.late + c.duplicate + c.future + c.invalid == pushed, "every push is counted once");
    fuzz::require(monitor->check(now).radars.size() == rig.radars.size(), "every radar has a state");
  }
};

void call(Live& live, Input& input) {
  fuzz::Sensors sensors;
  const int kind = input.below(16);
  if (kind < 5) live.push_camera(input, sensors);
  if (kind >= 5 && kind < 9) live.push_radar(input, sensors);
  if (kind >= 9 && kind < 11) live.push_ego(input);
  if (kind >= 11 && kind < 15) live.pop();
  if (kind == 15) (input.flag() ? live.synchronizer->reset() : live.monitor->reset());
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  std::unique_ptr<Live> live;
  if (!fuzz::accepted([&] { live = std::make_unique<Live>(input); })) return 0;
  std::int64_t clock = 0;
  Watchdog watchdog(0.5, {}, [&] { return clock; }, false);
  for (int calls = 0; calls < 64 && input.left() > 0; ++calls) {
    live->now = input.time(live->now);
    clock = std::max(clock, live->now);
    call(*live, input);
    if (input.flag()) watchdog.beat();
    watchdog.poll();
  }
  return 0;
}
