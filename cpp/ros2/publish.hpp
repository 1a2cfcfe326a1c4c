// Boxes and health -> ROS 2 messages. Templates over the messages' fields, as convert.hpp.
#pragma once
#include "convert.hpp"

namespace imkd_ros {

struct NamedBox {  // a detection or a track
  imkd::Detection box;
  std::string name;  // of its class
  std::string id;    // of its track; empty: none
};

// ---- vision_msgs/Detection3DArray ----
template <class Pose>
Pose pose_of(const imkd::Detection& box) {
  Pose pose;
  pose.position.x = box.x;
  pose.position.y = box.y;
  pose.position.z = box.z;
  pose.orientation.z = std::sin(box.yaw / 2.0);
  pose.orientation.w = std::cos(box.yaw / 2.0);
  return pose;
}

// size: length, width and height along the box's x, y and z. vision_msgs has no velocity.
template <class Array>
Array boxes_message(const std::vector<NamedBox>& boxes, std::int64_t timestamp_ns, const std::string& frame_id) {
  Array array;
  array.header = header_of<decltype(array.header)>(timestamp_ns, frame_id);
  array.detections.resize(boxes.size());
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    const imkd::Detection& box = boxes[i].box;
    auto& out = array.detections[i];
    out.header = array.header;
    out.id = boxes[i].id;
    out.bbox.center = pose_of<decltype(out.bbox.center)>(box);
    out.bbox.size.x = box.length;
    out.bbox.size.y = box.width;
    out.bbox.size.z = box.height;
    out.results.resize(1);
    out.results[0].hypothesis.class_id = boxes[i].name;
    out.results[0].hypothesis.score = box.score;
    out.results[0].pose.pose = out.bbox.center;
  }
  return array;
}

// ---- visualization_msgs/MarkerArray ----
constexpr std::uint32_t kMarkerNanoseconds = 500'000'000;  // without a next frame, the boxes vanish

template <class Color>
Color color_of(int label, float alpha) {  // hues at the golden angle
  const float hue = std::fmod(0.33f + 0.618034f * float(label), 1.0f) * 6;
  const auto channel = [&](float at) {
    const float distance = std::abs(std::fmod(hue - at + 9, 6.0f) - 3);  // 3 at the channel's own hue
    return std::clamp(distance - 1, 0.0f, 1.0f);
  };
  Color color;
  color.r = 1 - channel(0) * 0.8f;
  color.g = 1 - channel(2) * 0.8f;
  color.b = 1 - channel(4) * 0.8f;
  color.a = alpha;
  return color;
}

// A cube and a text per box, an arrow of one second where it moves; the first marker deletes those of the last frame.
template <class Array>
Array markers_message(const std::vector<NamedBox>& boxes, std::int64_t timestamp_ns, const std::string& frame_id) {
  Array array;
  using Marker = typename decltype(array.markers)::value_type;
  const auto header = header_of<decltype(Marker::header)>(timestamp_ns, frame_id);
  const auto add = [&](const char* ns, std::size_t id, int type, const imkd::Detection& box) -> Marker& {
    array.markers.emplace_back();
    Marker& marker = array.markers.back();
    marker.header = header;
    marker.ns = ns;
    marker.id = static_cast<int>(id);
    marker.type = type;
    marker.action = Marker::ADD;
    marker.lifetime.nanosec = kMarkerNanoseconds;
    marker.color = color_of<decltype(marker.color)>(box.label, type == Marker::CUBE ? 0.4f : 1.0f);
    marker.pose.orientation.w = 1;
    return marker;
  };
  array.markers.emplace_back();
  array.markers[0].header = header;
  array.markers[0].action = Marker::DELETEALL;
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    const imkd::Detection& box = boxes[i].box;
    Marker& cube = add("box", i, Marker::CUBE, box);
    cube.pose = pose_of<decltype(cube.pose)>(box);
    cube.scale.x = box.length;
    cube.scale.y = box.width;
    cube.scale.z = box.height;
    Marker& text = add("label", i, Marker::TEXT_VIEW_FACING, box);
    text.pose.position.x = box.x;
    text.pose.position.y = box.y;
    text.pose.position.z = box.z + box.height / 2 + 0.5;
    text.scale.z = 0.6;
    char score[16];
    std::snprintf(score, sizeof score, " %.2f", double(box.score));
    text.text = boxes[i].name + (boxes[i].id.empty() ? "" : " #" + boxes[i].id) + score;
    if (!(std::hypot(box.vx, box.vy) > 0.3f)) continue;  // m/s; NaN: unknown
    Marker& arrow = add("velocity", i, Marker::ARROW, box);
    arrow.points.resize(2);
    arrow.points[0].x = box.x;
    arrow.points[0].y = box.y;
    arrow.points[0].z = arrow.points[1].z = box.z;
    arrow.points[1].x = box.x + box.vx;
    arrow.points[1].y = box.y + box.vy;
    arrow.scale.x = 0.15;  // m: shaft, head, length of the head
    arrow.scale.y = 0.4;
    arrow.scale.z = 0.5;
  }
  return array;
}

// ---- diagnostic_msgs/DiagnosticArray ----
constexpr const char* kStateNames[] = {"ok",      "late",   "stale", "invalid",
                                       "missing", "frozen", "lost",  "unusable"};  // by SensorState
constexpr const char* kModeNames[] = {"full", "partial", "camera_only", "radar_only", "blind"};
constexpr const char* kMotionNames[] = {"poses", "twist", "estimated", "none"};

struct SensorReport {
  std::string name, topic;
  imkd::SensorState state = imkd::SensorState::missing;
  std::int64_t messages = 0, refused = 0;
  std::string last_refusal;  // why
};

struct DetectorReport {  // of the time since the report before
  imkd::Health health;   // of the last result
  bool has_result = false;
  double silence = 0;               // s since the last result, or since the start
  double max_silence = 0;           // s from which it is an error
  double max_latency = 0;           // s of latency from which it is a warning
  std::vector<double> latencies_s;  // from a frame's time to the publication of its boxes
  std::vector<double> infer_s;      // of Detector::infer
  std::string fault;                // of the last call of infer; empty: none
  std::vector<std::pair<std::string, std::string>> values;
};

inline std::string in_ms(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", seconds * 1000);
  return text;
}

inline double median_of(std::vector<double> values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::nth_element(values.begin(), values.begin() + std::ptrdiff_t(values.size() / 2), values.end());
  return values[values.size() / 2];
}
inline double max_of(const std::vector<double>& values) {
  return values.empty() ? std::numeric_limits<double>::quiet_NaN() : *std::max_element(values.begin(), values.end());
}

template <class Status>
void add_value(Status& status, const std::string& key, const std::string& value) {
  status.values.emplace_back();
  status.values.back().key = key;
  status.values.back().value = value;
}

template <class Status>
Status status_of(const SensorReport& sensor, const std::string& node) {
  Status status;
  status.name = node + ": " + sensor.name;
  status.hardware_id = sensor.name;
  status.message = kStateNames[static_cast<int>(sensor.state)];
  status.level = sensor.state == imkd::SensorState::ok ? Status::OK
                 : imkd::usable(sensor.state)          ? Status::WARN
                                                       : Status::ERROR;
  add_value(status, "topic", sensor.topic);
  add_value(status, "messages", std::to_string(sensor.messages));
  add_value(status, "refused", std::to_string(sensor.refused));
  if (!sensor.last_refusal.empty()) add_value(status, "last refusal", sensor.last_refusal);
  return status;
}

template <class Status>
Status status_of(const DetectorReport& report, const std::string& node) {
  const imkd::Health& health = report.health;
  const double latency = median_of(report.latencies_s);
  Status status;
  status.name = node + ": detector";
  status.hardware_id = node;
  status.message = kModeNames[static_cast<int>(health.mode)];
  status.level = health.mode == imkd::Mode::full && health.warnings.empty() ? Status::OK : Status::WARN;
  if (latency > report.max_latency) {
    status.level = Status::WARN;
    status.message += ", latency " + in_ms(latency) + " ms";
  }
  if (!report.fault.empty() || report.silence > report.max_silence || health.mode == imkd::Mode::blind) {
    status.level = Status::ERROR;
    if (report.silence > report.max_silence) status.message = "no result for " + in_ms(report.silence) + " ms";
    if (!report.fault.empty()) status.message = report.fault;
  }
  if (!report.has_result) status.message = "no frame yet";
  add_value(status, "mode", kModeNames[static_cast<int>(health.mode)]);
  add_value(status, "ego motion", kMotionNames[static_cast<int>(health.ego_motion)]);
  add_value(status, "frames", std::to_string(report.latencies_s.size()));
  add_value(status, "latency median ms", in_ms(latency));
  add_value(status, "latency max ms", in_ms(max_of(report.latencies_s)));
  add_value(status, "infer median ms", in_ms(median_of(report.infer_s)));
  add_value(status, "infer max ms", in_ms(max_of(report.infer_s)));
  for (const auto& [key, value] : report.values) add_value(status, key, value);
  for (const imkd::Warning& warning : health.warnings)
    add_value(status, imkd::code_name(warning.code), warning.text.data());
  return status;
}

}  // namespace imkd_ros
