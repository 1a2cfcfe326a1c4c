// The C ABI of the tracker.
#include "imkd/tracker.hpp"

#include <cstring>
#include <memory>
#include <vector>

#include "c/handle.hpp"
#include "imkd/error.hpp"
#include "imkd/imkd.h"

using namespace imkd;
using namespace imkd::c;

struct imkd_tracker : Handle {
  std::unique_ptr<Tracker> core;
  Result result;                   // the input
  std::vector<imkd_track> tracks;  // of the last update
};

namespace {

static_assert(static_cast<int>(TrackState::tentative) == IMKD_TRACK_TENTATIVE &&
              static_cast<int>(TrackState::confirmed) == IMKD_TRACK_CONFIRMED &&
              static_cast<int>(TrackState::coasting) == IMKD_TRACK_COASTING);
static_assert(sizeof(Detection) == sizeof(imkd_detection));

Tracker& core_of(imkd_tracker& handle) {
  if (!handle.core)
    throw Error(Code::engine_unavailable, "nothing is loaded", "imkd_tracker", "call imkd_tracker_load first");
  return *handle.core;
}

TrackerOptions read_options(const imkd_tracker_options* input) {
  TrackerOptions options;
  if (!input) return options;
  const imkd_tracker_options values = read(input, "imkd_tracker_options");
  set_unless_0(options.max_tracks, values.max_tracks);
  set_unless_0(options.birth_score, values.birth_score);
  set_unless_0(options.confirm_score, values.confirm_score);
  set_unless_0(options.max_age, values.max_age);
  set_unless_0(options.max_gap, values.max_gap);
  return options;
}

void read_result(const imkd_result& input, Result& output) {
  if (input.detection_count && (!input.detections || input.detection_stride < sizeof(imkd_detection)))
    refuse("has " + std::to_string(input.detection_count) + " detections, but no detections or a detection_stride of " +
               std::to_string(input.detection_stride),
           "imkd_result", "give the result of imkd_detector_infer, or set both");
  output.timestamp_ns = input.timestamp_ns;
  output.ego = read_ego(input.T_world_ego, input.twist);
  output.detections.resize(input.detection_count);
  for (std::uint32_t i = 0; i < input.detection_count; ++i) {
    const imkd_detection& d = *imkd_detection_at(&input, i);
    output.detections[i] = {d.x, d.y, d.z, d.length, d.width, d.height, d.yaw, d.vx, d.vy, d.score, d.label};
  }
}

imkd_track track_of(const Track& track) {
  const Detection& d = track.box;
  return {track.id,
          static_cast<std::int32_t>(track.state),
          track.velocity_measured,
          {d.x, d.y, d.z, d.length, d.width, d.height, d.yaw, d.vx, d.vy, d.score, d.label},
          track.velocity_std,
          track.age,
          track.coasting,
          track.hits,
          track.detection};
}

}  // namespace

imkd_tracker* imkd_tracker_new(void) try { return new imkd_tracker; } catch (...) {
  return nullptr;
}

void imkd_tracker_destroy(imkd_tracker* handle) { destroy(handle); }

int imkd_tracker_load(imkd_tracker* handle, const char* model, const imkd_tracker_options* options) {
  return exclusive_call(handle, [&](imkd_tracker& h) {
    const ModelSpec spec = load_spec(model);
    const TrackerOptions values = read_options(options);
    auto core = std::make_unique<Tracker>(spec, values);
    h.result.detections.reserve(static_cast<std::size_t>(spec.head.max_detections));
    h.tracks.reserve(static_cast<std::size_t>(values.max_tracks));
    h.core = std::move(core);
  });
}

int imkd_tracker_update(imkd_tracker* handle, const imkd_result* result, imkd_tracks* tracks) {
  return exclusive_call(handle, [&](imkd_tracker& h) {
    check_output(tracks, "imkd_tracks");
    Tracker& core = core_of(h);
    read_result(read(result, "imkd_result"), h.result);
    h.tracks.clear();
    for (const Track& track : core.update(h.result)) h.tracks.push_back(track_of(track));
    const TrackerHealth& health = core.health();
    write(imkd_tracks{0, static_cast<std::uint32_t>(h.tracks.size()), h.tracks.data(), sizeof(imkd_track),
                      health.over_ground, health.detections_invalid, health.detections_overflow, health.restarts,
                      health.repeats},
          tracks);
  });
}

int imkd_tracker_reset(imkd_tracker* handle) {
  return exclusive_call(handle, [](imkd_tracker& h) { core_of(h).reset(); });
}

const char* imkd_tracker_error(const imkd_tracker* handle) { return error_of(handle); }
