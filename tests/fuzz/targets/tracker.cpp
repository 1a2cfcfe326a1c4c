// A tracker whose options and frames of boxes are the input.
#include "imkd/tracker.hpp"

#include <memory>

#include "fakes.hpp"
#include "target.hpp"

using namespace imkd;
using fuzz::Input;

namespace {

TrackerOptions options_of(Input& input) {
  TrackerOptions options;
  if (input.flag()) return options;
  for (double* one : {&options.birth_score, &options.confirm_score, &options.max_age, &options.max_gap})
    if (input.flag()) *one = input.number();
  options.max_tracks = input.below(12);
  if (input.flag()) {
    ClassMotion motion = class_motion(input.flag() ? "car" : input.name());
    for (double* one : {&motion.position_std, &motion.velocity_std, &motion.speed_std, &motion.acceleration})
      if (input.flag()) *one = input.number();
    options.classes.push_back(motion);
  }
  return options;
}

Result frame_of(Input& input, std::int64_t& now) {
  Result result;
  result.timestamp_ns = now = input.time(now);
  result.ego = input.ego();
  for (int count = input.below(8); count > 0; --count) {
    Detection& d = result.detections.emplace_back();
    for (float* number : {&d.x, &d.y, &d.z, &d.vx, &d.vy, &d.yaw}) *number = static_cast<float>(input.number());
    for (float* side : {&d.length, &d.width, &d.height})
      *side = input.below(16) ? 1.f + static_cast<float>(input.below(8)) : static_cast<float>(input.number());
    d.score = input.below(16) ? static_cast<float>(input.below(101)) / 100.f : static_cast<float>(input.number());
    d.label = input.below(16) ? input.below(2) : input.value<std::int32_t>();
  }
  return result;
}

void check(const std::vector<Track>& tracks, const Tracker& tracker, const Result& result) {
  std::int64_t last = 0;
  for (const Track& track : tracks) {
    fuzz::require(track.id > last, "tracks are sorted by ids that do not repeat");
    last = track.id;
    for (float number : {track.box.x, track.box.y, track.box.z, track.box.yaw, track.age, track.coasting})
      fuzz::require(std::isfinite(number), "a track is finite");
    fuzz::require(track.box.score >= 0 && track.box.score <= 1, "a track's score is in 0..1");
    fuzz::require(track.detection < static_cast<int>(result.detections.size()), "a track's detection exists");
  }
  fuzz::require(tracker.health().detections_invalid + tracker.health().detections_overflow <=
                    static_cast<int>(result.detections.size()),
                "no detection is counted twice");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  std::unique_ptr<Tracker> tracker;
  const TrackerOptions options = options_of(input);
  if (!fuzz::accepted([&] { tracker = std::make_unique<Tracker>(fakes::small_spec(), options); })) return 0;
  std::int64_t now = 1'000'000'000;
  for (int frames = 0; frames < 32 && input.left() > 0; ++frames) {
    if (input.below(32) == 31) tracker->reset();
    const Result result = frame_of(input, now);
    check(tracker->update(result), *tracker, result);
  }
  return 0;
}
