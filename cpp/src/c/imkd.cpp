// The C ABI of the detector: checks the structs and converts them to the core's. The live handles are in live.cpp, the
// tracker in tracker.cpp.
#include "imkd/imkd.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <optional>

#include "c/handle.hpp"
#include "engine/ort.hpp"
#include "imkd/bundle.hpp"
#include "imkd/detector.hpp"
#include "imkd/error.hpp"
#include "live_fields.hpp"

using namespace imkd;
using namespace imkd::c;

struct imkd_detector : Handle {
  std::optional<Detector> detector;
  FrameSet frames;  // a member to reuse its memory
  std::string why_not_replayed;
};

namespace imkd::c {

ImageView image_view(const imkd_image& image) {
  check_reserved(image.reserved, "imkd_image.reserved");
  if (image.yuv > IMKD_BT709_FULL)
    throw Error(Code::frame_bad_dtype, "is " + std::to_string(image.yuv) + ", no colour matrix", "imkd_image.yuv",
                "use a value of imkd_yuv, 0 to 3");
  const std::ptrdiff_t width = image.width;
  ImageView view{image.data, image.width, image.height, image.row_stride, image.pixel_stride, image.channel_stride};
  if (image.chroma) {
    view.pixel_stride = 1;
    view.channel_stride = 0;
    view.chroma = image.chroma;
    view.chroma_stride = image.chroma_stride ? image.chroma_stride : width;
    view.yuv = static_cast<YuvMatrix>(image.yuv);
  } else {
    if (view.pixel_stride == 0) view.pixel_stride = 3;
    if (view.channel_stride == 0 && std::abs(view.pixel_stride) != 1) view.channel_stride = 1;
  }
  if (image.row_stride == 0) view.row_stride = width * std::abs(view.pixel_stride);
  return view;
}

SensorRig load_rig(const char* text) {
  if (!text) throw Error(Code::rig_syntax, "is NULL", "rig", "give the path of a JSON file, or the JSON itself");
  return text[0] == '{' ? SensorRig::from_json(text) : SensorRig::load(text);
}

ModelSpec load_spec(const char* text) {
  if (!text)
    throw Error(Code::bundle_missing, "is NULL", "model", "give the path of a folder NAME.imkd, or the JSON of a spec");
  return text[0] == '{' ? ModelSpec::from_json(text) : Bundle::load(text).spec;
}

Ego read_ego(const double* T_world_ego, const double* twist) {
  Ego ego;
  if (T_world_ego) std::memcpy(ego.T_world_ego.emplace().data(), T_world_ego, sizeof(Mat4));
  if (twist) std::memcpy(ego.twist.emplace().data(), twist, sizeof(Vec3));
  return ego;
}

}  // namespace imkd::c

namespace {

template <class Struct>
Struct read_at(const Struct* first, std::size_t index, const char* where) {
  if (!first) refuse("is NULL", where, "give an array of as many structs as the count says");
  const std::size_t stride = first->struct_size;
  const auto* item = reinterpret_cast<const Struct*>(reinterpret_cast<const char*>(first) + index * stride);
  if (item->struct_size != stride)
    refuse("the struct_size of item " + std::to_string(index) + " is " + std::to_string(item->struct_size) +
               ", that of item 0 is " + std::to_string(stride),
           where, "set struct_size to sizeof in every item");
  return read(item, where);
}

std::optional<Mat4> read_pose(const double* T) { return read_ego(T, nullptr).T_world_ego; }

void read_frames(const imkd_frames& input, FrameSet& output) {
  check_reserved(input.reserved, "imkd_frames.reserved");
  output.timestamp_ns = input.timestamp_ns;
  output.cameras.clear();
  output.camera_timestamps_ns.clear();
  output.camera_T_world_ego.clear();
  output.sweeps.clear();
  for (std::uint32_t i = 0; i < input.image_count; ++i) {
    const imkd_image image = read_at(input.images, i, "imkd_frames.images");
    output.cameras.push_back(image_view(image));
    output.camera_timestamps_ns.push_back(image.has_timestamp ? image.timestamp_ns : input.timestamp_ns);
    output.camera_T_world_ego.push_back(read_pose(image.T_world_ego));
  }
  for (std::uint32_t i = 0; i < input.sweep_count; ++i) {
    const imkd_sweep sweep = read_at(input.sweeps, i, "imkd_frames.sweeps");
    const std::int64_t time = sweep.has_timestamp ? sweep.timestamp_ns : input.timestamp_ns;
    output.sweeps.push_back({sweep.radar, time, sweep.points, sweep.count, read_pose(sweep.T_world_ego)});
  }
  output.ego = read_ego(input.T_world_ego, input.twist);
}

// The C structs and enums are views of the core's: same values, same layout.
static_assert(static_cast<int>(Mode::full) == IMKD_FULL && static_cast<int>(Mode::blind) == IMKD_BLIND);
static_assert(static_cast<int>(SensorState::ok) == IMKD_SENSOR_OK &&
              static_cast<int>(SensorState::missing) == IMKD_SENSOR_MISSING);
static_assert(static_cast<int>(SensorState::frozen) == IMKD_SENSOR_FROZEN &&
              static_cast<int>(SensorState::lost) == IMKD_SENSOR_LOST &&
              static_cast<int>(SensorState::unusable) == IMKD_SENSOR_UNUSABLE);
static_assert(static_cast<int>(MotionSource::poses) == IMKD_MOTION_POSES &&
              static_cast<int>(MotionSource::none) == IMKD_MOTION_NONE);
static_assert(static_cast<int>(YuvMatrix::bt601) == IMKD_BT601 &&
              static_cast<int>(YuvMatrix::bt709_full) == IMKD_BT709_FULL);
static_assert(sizeof(SensorState) == 1 && std::is_standard_layout_v<Detection>);
static_assert(std::is_standard_layout_v<MapView> && offsetof(MapView, rows) == offsetof(imkd_map, rows) &&
              offsetof(MapView, columns) == offsetof(imkd_map, columns) &&
              offsetof(MapView, data) == offsetof(imkd_map, data));
static_assert(std::is_standard_layout_v<Warning> && offsetof(Warning, text) == offsetof(imkd_warning, text) &&
              sizeof(Warning) == sizeof(imkd_warning));
static_assert(offsetof(Detection, label) == offsetof(imkd_detection, label) &&
              offsetof(Detection, score) == offsetof(imkd_detection, score) &&
              offsetof(Detection, yaw) == offsetof(imkd_detection, yaw) &&
              offsetof(Detection, vy) == offsetof(imkd_detection, vy));

void write_result(const Result& r, const std::string& why_not_replayed, imkd_result* output) {
  imkd_result all{};
  all.detection_count = static_cast<std::uint32_t>(r.detections.size());
  all.timestamp_ns = r.timestamp_ns;
  all.detections = r.detections.data();
  all.detection_stride = sizeof(Detection);
  const Health& h = r.health;
  all.mode = static_cast<std::int32_t>(h.mode);
  all.camera_count = static_cast<std::uint32_t>(h.cameras.size());
  all.radar_count = static_cast<std::uint32_t>(h.radars.size());
  all.camera_states = reinterpret_cast<const std::uint8_t*>(h.cameras.data());
  all.radar_states = reinterpret_cast<const std::uint8_t*>(h.radars.data());
  all.radar_points = h.radar_points;
  all.radar_points_invalid = h.radar_points_invalid;
  all.radar_points_outside = h.radar_points_outside;
  all.radar_points_overflow = h.radar_points_overflow;
  all.boxes_invalid = h.boxes_invalid;
  all.past_frames = h.past_frames;
  all.ego_speed_estimated = h.ego_speed_estimated;
  all.ego_speed = h.ego_speed;
  all.ego_speed_residual = h.ego_speed_residual;
  all.stage_count = kStages;
  all.timings_us = r.timings_us.data();
  all.total_us = r.total_us;
  all.segmentation_rows = r.segmentation.rows;
  all.segmentation_columns = r.segmentation.columns;
  all.segmentation = r.segmentation.data;
  all.debug = r.debug.data();
  all.debug_count = static_cast<std::uint32_t>(r.debug.size());
  all.debug_stride = sizeof(MapView);
  all.maps_invalid = h.maps_invalid;
  all.ego_motion = static_cast<std::int32_t>(h.ego_motion);
  all.warnings = h.warnings.data();
  all.warning_count = static_cast<std::uint32_t>(h.warnings.size());
  all.warning_stride = sizeof(Warning);
  if (r.ego.T_world_ego) all.T_world_ego = r.ego.T_world_ego->data();
  if (r.ego.twist) all.twist = r.ego.twist->data();
  all.replayed = r.replayed;
  all.why_not_replayed = why_not_replayed.c_str();
  write(all, output);
}

Detector& detector_of(imkd_detector& handle) {
  if (!handle.detector)
    throw Error(Code::engine_unavailable, "no model is loaded", "imkd_detector", "call imkd_detector_load first");
  return *handle.detector;
}

template <class Enum>
const char* name_of(std::uint32_t index) {
  return index < std::size(EnumNames<Enum>::names) ? EnumNames<Enum>::names[index] : nullptr;
}

template <class List>
const char* name_in(const List& list, std::uint32_t index) {
  return index < list.size() ? list[index].name.c_str() : nullptr;
}

}  // namespace

std::uint32_t imkd_abi_version(void) { return IMKD_ABI_VERSION; }

int imkd_set_onnxruntime(const char* path) try {
  set_ort_library(path ? path : "");
  return IMKD_OK;
} catch (...) {
  return IMKD_UNEXPECTED;
}

imkd_detector* imkd_detector_new(void) try { return new imkd_detector; } catch (...) {
  return nullptr;
}

void imkd_detector_destroy(imkd_detector* handle) { destroy(handle); }

static DetectorOptions read_options(const imkd_options* input) {
  DetectorOptions options;
  if (!input) return options;
  const imkd_options values = read(input, "imkd_options");
  check_reserved(values.reserved, "imkd_options.reserved");
  if (values.engine) options.engine = values.engine;
  if (values.device) options.device = values.device;
  options.threads = values.threads;
  options.debug = values.debug != 0;
  options.stage_times = values.stage_times != 0;
  if (values.trust) options.trust = values.trust;
  if (values.score_threshold != 0) options.score_threshold = values.score_threshold;
  return options;
}

int imkd_detector_load(imkd_detector* handle, const char* bundle, const char* rig, const imkd_options* options) {
  return exclusive_call(handle, [&](imkd_detector& h) {
    if (!bundle) throw Error(Code::bundle_missing, "is NULL", "bundle", "give the path of a folder NAME.imkd");
    const DetectorOptions detector_options = read_options(options);
    h.detector = Detector::load(bundle, load_rig(rig), detector_options);
  });
}

int imkd_detector_set_rig(imkd_detector* handle, const char* rig) {
  return exclusive_call(handle, [&](imkd_detector& h) { detector_of(h).set_rig(load_rig(rig)); });
}

int imkd_detector_infer(imkd_detector* handle, const imkd_frames* frames, imkd_result* result) {
  return exclusive_call(handle, [&](imkd_detector& h) {
    check_output(result, "imkd_result");
    Detector& detector = detector_of(h);
    read_frames(read(frames, "imkd_frames"), h.frames);
    const Result& found = detector.infer(h.frames);
    h.why_not_replayed = detector.why_not_replayed();
    write_result(found, h.why_not_replayed, result);
  });
}

int imkd_detector_wait_for(imkd_detector* handle, void* stream) {
  return exclusive_call(handle, [&](imkd_detector& h) { detector_of(h).wait_for(stream); });
}

int imkd_detector_reset(imkd_detector* handle) {
  return exclusive_call(handle, [](imkd_detector& h) { detector_of(h).reset(); });
}

const char* imkd_detector_error(const imkd_detector* handle) { return error_of(handle); }

const char* imkd_detector_name(const imkd_detector* handle, imkd_names names, std::uint32_t index) {
  switch (names) {
    case IMKD_STAGES:
      return index < kStages ? kStageNames[index] : nullptr;
    case IMKD_MODES:
      return name_of<Mode>(index);
    case IMKD_SENSOR_STATES:
      return name_of<SensorState>(index);
    case IMKD_PUSHED:
      return name_of<Pushed>(index);
    case IMKD_MOTION_SOURCES:
      return name_of<MotionSource>(index);
    case IMKD_TRACK_STATES:
      return name_of<TrackState>(index);
    default:
      break;
  }
  if (!handle || !handle->detector) return nullptr;
  const Detector& detector = *handle->detector;
  return names == IMKD_CLASSES   ? name_in(detector.spec().head.classes, index)
         : names == IMKD_CAMERAS ? name_in(detector.rig().cameras, index)
         : names == IMKD_RADARS  ? name_in(detector.rig().radars, index)
                                 : nullptr;
}
