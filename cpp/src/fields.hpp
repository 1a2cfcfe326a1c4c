// The one list of the members of the spec, the rig and the contract: the JSON reader, the JSON writer and the Python
// binding walk it.
#pragma once
#include <string>

#include "imkd/contract.hpp"
#include "imkd/error.hpp"
#include "imkd/result.hpp"
#include "imkd/rig.hpp"
#include "imkd/spec.hpp"

namespace imkd {

// ---- enums and their names in JSON and Python ----
template <class Enum>
struct EnumNames;
template <>
struct EnumNames<DepthSpacing> {
  static constexpr const char* names[] = {"linear", "log"};
};
template <>
struct EnumNames<RadarStatistic> {
  static constexpr const char* names[] = {"log_count", "intensity_max", "intensity_mean", "velocity_x", "velocity_y",
                                          "phase_cos", "phase_sin",     "z_mean",         "z_min",      "z_max",
                                          "offset_x",  "offset_y",      "age_min"};
};
template <>
struct EnumNames<Distortion> {
  static constexpr const char* names[] = {"none", "plumb_bob", "rational_polynomial", "fisheye"};
};
template <>
struct EnumNames<RadialVelocity> {
  static constexpr const char* names[] = {"compensated", "raw", "aliased"};
};
template <>
struct EnumNames<SensorState> {
  static constexpr const char* names[] = {"ok", "late", "stale", "invalid", "missing", "frozen", "lost", "unusable"};
};
template <>
struct EnumNames<Mode> {
  static constexpr const char* names[] = {"full", "partial", "camera_only", "radar_only", "blind"};
};
template <>
struct EnumNames<MotionSource> {
  static constexpr const char* names[] = {"poses", "twist", "estimated", "none"};
};
template <>
struct EnumNames<IntensityUnit> {
  static constexpr const char* names[] = {"unknown", "rcs_dbsm", "snr_db", "magnitude_db"};
};
template <>
struct EnumNames<Traffic> {
  static constexpr const char* names[] = {"unknown", "right", "left"};
};

template <class Enum>
const char* enum_name(Enum value) {
  constexpr int count = sizeof(EnumNames<Enum>::names) / sizeof(EnumNames<Enum>::names[0]);
  const int index = static_cast<int>(value);
  return index >= 0 && index < count ? EnumNames<Enum>::names[index] : "?";
}

template <class Enum>
bool is_known(Enum value) {
  return enum_name(value)[0] != '?';
}

template <class Enum>
std::string enum_choices() {
  std::string text;
  for (const char* name : EnumNames<Enum>::names) text += (text.empty() ? "" : ", ") + std::string(name);
  return text;
}

template <class Enum>
void check_known(Enum value, Code code, const std::string& where) {
  if (!is_known(value))
    throw Error(code, std::to_string(static_cast<int>(value)) + " is not a known value", where,
                "use one of: " + enum_choices<Enum>());
}

template <class Enum>
Enum enum_value(const std::string& name, Code code, const std::string& where) {
  int index = 0;
  for (const char* known : EnumNames<Enum>::names) {
    if (name == known) return static_cast<Enum>(index);
    ++index;
  }
  throw Error(code, "\"" + name + "\" is not a known value", where, "use one of: " + enum_choices<Enum>());
}

// ---- members; field(name, pointer to member) ----
template <class F>
void fields(const ImageSpec*, F&& field) {
  field("width", &ImageSpec::width);
  field("height", &ImageSpec::height);
  field("stride", &ImageSpec::stride);
  field("anchor", &ImageSpec::anchor);
  field("mean", &ImageSpec::mean);
  field("std", &ImageSpec::std);
}

template <class F>
void fields(const DepthSpec*, F&& field) {
  field("min", &DepthSpec::min);
  field("max", &DepthSpec::max);
  field("bins", &DepthSpec::bins);
  field("spacing", &DepthSpec::spacing);
}

template <class F>
void fields(const GridSpec*, F&& field) {
  field("x_min", &GridSpec::x_min);
  field("x_max", &GridSpec::x_max);
  field("y_min", &GridSpec::y_min);
  field("y_max", &GridSpec::y_max);
  field("z_min", &GridSpec::z_min);
  field("z_max", &GridSpec::z_max);
  field("cell", &GridSpec::cell);
}

template <class F>
void fields(const RadarFeature*, F&& field) {
  field("statistic", &RadarFeature::statistic);
  field("offset", &RadarFeature::offset);
  field("scale", &RadarFeature::scale);
}

template <class F>
void fields(const RadarSpec*, F&& field) {
  field("cell", &RadarSpec::cell);
  field("max_points", &RadarSpec::max_points);
  field("max_age", &RadarSpec::max_age);
  field("features", &RadarSpec::features);
}

template <class F>
void fields(const ClassSpec*, F&& field) {
  field("name", &ClassSpec::name);
  field("group", &ClassSpec::group);
  field("nms_radius", &ClassSpec::nms_radius);
  field("exclusive", &ClassSpec::exclusive);
  field("min_size", &ClassSpec::min_size);
  field("max_size", &ClassSpec::max_size);
}

template <class F>
void fields(const HeadSpec*, F&& field) {
  field("classes", &HeadSpec::classes);
  field("score_threshold", &HeadSpec::score_threshold);
  field("max_candidates", &HeadSpec::max_candidates);
  field("max_detections", &HeadSpec::max_detections);
}

template <class F>
void fields(const HistorySpec*, F&& field) {
  field("frames", &HistorySpec::frames);
  field("interval", &HistorySpec::interval);
  field("channels", &HistorySpec::channels);
}

template <class F>
void fields(const ModelSpec*, F&& field) {
  field("name", &ModelSpec::name);
  field("cameras", &ModelSpec::cameras);
  field("image", &ModelSpec::image);
  field("depth", &ModelSpec::depth);
  field("context_channels", &ModelSpec::context_channels);
  field("grid", &ModelSpec::grid);
  field("radar", &ModelSpec::radar);
  field("head", &ModelSpec::head);
  field("history", &ModelSpec::history);
  field("segmentation", &ModelSpec::segmentation);
}

template <class F>
void fields(const CameraCalibration*, F&& field) {
  field("name", &CameraCalibration::name);
  field("width", &CameraCalibration::width);
  field("height", &CameraCalibration::height);
  field("K", &CameraCalibration::K);
  field("distortion", &CameraCalibration::distortion);
  field("coefficients", &CameraCalibration::coefficients);
  field("T_ego_camera", &CameraCalibration::T_ego_camera);
}

template <class F>
void fields(const RadarCalibration*, F&& field) {
  field("name", &RadarCalibration::name);
  field("T_ego_radar", &RadarCalibration::T_ego_radar);
  field("velocity", &RadarCalibration::velocity);
  field("period", &RadarCalibration::period);
}

template <class F>
void fields(const SensorRig*, F&& field) {
  field("cameras", &SensorRig::cameras);
  field("radars", &SensorRig::radars);
  field("ground_plane", &SensorRig::ground_plane);
}

template <class F>
void fields(const CamerasContract*, F&& field) {
  field("number", &CamerasContract::number);
  field("field_of_view", &CamerasContract::field_of_view);
  field("width", &CamerasContract::width);
  field("height", &CamerasContract::height);
  field("lenses", &CamerasContract::lenses);
  field("mounting", &CamerasContract::mounting);
}

template <class F>
void fields(const RadarsContract*, F&& field) {
  field("number", &RadarsContract::number);
  field("velocity", &RadarsContract::velocity);
  field("unit", &RadarsContract::unit);
  field("intensity", &RadarsContract::intensity);
  field("points", &RadarsContract::points);
  field("rate", &RadarsContract::rate);
  field("mounting", &RadarsContract::mounting);
}

template <class F>
void fields(const ClassContract*, F&& field) {
  field("name", &ClassContract::name);
  field("objects", &ClassContract::objects);
  field("size", &ClassContract::size);
  field("smallest", &ClassContract::smallest);
  field("largest", &ClassContract::largest);
}

template <class F>
void fields(const TrainedOutputs*, F&& field) {
  field("velocity", &TrainedOutputs::velocity);
}

template <class F>
void fields(const Contract*, F&& field) {
  field("data", &Contract::data);
  field("frames", &Contract::frames);
  field("cameras", &Contract::cameras);
  field("radars", &Contract::radars);
  field("classes", &Contract::classes);
  field("traffic", &Contract::traffic);
  field("ground_plane", &Contract::ground_plane);
  field("trained", &Contract::trained);
}

}  // namespace imkd
