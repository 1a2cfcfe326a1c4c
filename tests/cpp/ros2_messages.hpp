// The fields of ROS 2's messages that cpp/ros2 reads and writes, without ROS 2.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace msg {

struct Time {
  std::int32_t sec = 0;
  std::uint32_t nanosec = 0;
};
struct Header {
  Time stamp;
  std::string frame_id;
};
struct Vector3 {
  double x = 0, y = 0, z = 0;
};
struct Quaternion {
  double x = 0, y = 0, z = 0, w = 1;
};
struct Pose {
  Vector3 position;
  Quaternion orientation;
};
struct PoseWithCovariance {
  Pose pose;
};
struct Twist {
  Vector3 linear, angular;
};
struct TwistWithCovariance {
  Twist twist;
};

struct Image {
  Header header;
  std::uint32_t height = 0, width = 0;
  std::string encoding;
  std::uint8_t is_bigendian = 0;
  std::uint32_t step = 0;
  std::vector<std::uint8_t> data;
};
struct PointField {
  std::string name;
  std::uint32_t offset = 0;
  std::uint8_t datatype = 0;
  std::uint32_t count = 1;
};
struct PointCloud2 {
  Header header;
  std::uint32_t height = 1, width = 0;
  std::vector<PointField> fields;
  bool is_bigendian = false;
  std::uint32_t point_step = 0, row_step = 0;
  std::vector<std::uint8_t> data;
};
struct RadarReturn {
  float range = 0, azimuth = 0, elevation = 0, doppler_velocity = 0, amplitude = 0;
};
struct RadarScan {
  Header header;
  std::vector<RadarReturn> returns;
};
struct Odometry {
  Header header;
  std::string child_frame_id;
  PoseWithCovariance pose;
  TwistWithCovariance twist;
};

struct Hypothesis {
  std::string class_id;
  double score = 0;
};
struct HypothesisWithPose {
  Hypothesis hypothesis;
  PoseWithCovariance pose;
};
struct BoundingBox3D {
  Pose center;
  Vector3 size;
};
struct Detection3D {
  Header header;
  std::vector<HypothesisWithPose> results;
  BoundingBox3D bbox;
  std::string id;
};
struct Detection3DArray {
  Header header;
  std::vector<Detection3D> detections;
};

struct Color {
  float r = 0, g = 0, b = 0, a = 0;
};
struct Marker {
  static constexpr int ARROW = 0, CUBE = 1, TEXT_VIEW_FACING = 9, ADD = 0, DELETEALL = 3;
  Header header;
  std::string ns;
  int id = 0, type = 0, action = 0;
  Pose pose;
  Vector3 scale;
  Color color;
  Time lifetime;
  std::vector<Vector3> points;
  std::string text;
};
struct MarkerArray {
  std::vector<Marker> markers;
};

struct KeyValue {
  std::string key, value;
};
struct DiagnosticStatus {
  static constexpr std::uint8_t OK = 0, WARN = 1, ERROR = 2;
  std::uint8_t level = 0;
  std::string name, message, hardware_id;
  std::vector<KeyValue> values;
};

}  // namespace msg
