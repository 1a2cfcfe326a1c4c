// ROS 2 messages <-> imkd's types. Templates over the messages' fields: no header of ROS 2 is included.
#pragma once
#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "imkd/error.hpp"
#include "imkd/frames.hpp"
#include "imkd/result.hpp"

namespace imkd_ros {

// ---- times ----
template <class Stamp>
std::int64_t ns_of(const Stamp& stamp) {
  return std::int64_t{stamp.sec} * 1'000'000'000 + stamp.nanosec;
}

inline double seconds_of(std::int64_t ns) { return static_cast<double>(ns) / 1e9; }

template <class Header>
Header header_of(std::int64_t timestamp_ns, const std::string& frame_id) {
  Header header;
  header.stamp.sec = static_cast<std::int32_t>(timestamp_ns / 1'000'000'000);
  header.stamp.nanosec = static_cast<std::uint32_t>(timestamp_ns % 1'000'000'000);
  header.frame_id = frame_id;
  return header;
}

// ---- sensor_msgs/Image ----
constexpr const char* kEncodings = "rgb8, bgr8, rgba8, bgra8, mono8 or nv12";

// A view of the message's own pixels. Throws Error source_bad_value (encoding), source_bad_image (size).
template <class Image>
imkd::ImageView image_view(const Image& message) {
  const auto bad = [&](const std::string& what) {
    return imkd::Error(imkd::Code::source_bad_image, what, message.header.frame_id,
                       "correct what the camera driver publishes");
  };
  const std::string& encoding = message.encoding;
  const int bytes = encoding == "rgb8" || encoding == "bgr8"     ? 3
                    : encoding == "rgba8" || encoding == "bgra8" ? 4
                    : encoding == "mono8" || encoding == "nv12"  ? 1
                                                                 : 0;
  if (!bytes)
    throw imkd::Error(imkd::Code::source_bad_value, "the image encoding '" + encoding + "' is not read",
                      message.header.frame_id, std::string("publish ") + kEncodings);
  const bool nv12 = encoding == "nv12", reversed = encoding[0] == 'b';
  const std::uint64_t width = message.width, height = message.height, step = message.step;
  const std::string size = encoding + " of " + std::to_string(width) + " x " + std::to_string(height) + " px";
  if (!width || !height || width > 65536 || height > 65536) throw bad("an image in " + size);
  if (nv12 && (width % 2 || height % 2)) throw bad(size + " needs even sides");
  const std::uint64_t rows = nv12 ? height * 3 / 2 : height;
  if (step < width * bytes || message.data.size() < step * (rows - 1) + width * bytes)
    throw bad(size + " does not fit into " + std::to_string(message.data.size()) + " bytes in rows of " +
              std::to_string(step));
  imkd::ImageView view;
  view.data = message.data.data() + (reversed ? 2 : 0);
  view.width = static_cast<int>(width);
  view.height = static_cast<int>(height);
  view.row_stride = static_cast<std::ptrdiff_t>(step);
  view.pixel_stride = nv12 ? 3 : bytes;
  view.channel_stride = encoding == "mono8" ? 0 : reversed ? -1 : 1;
  if (nv12) {
    view.chroma = view.data + step * height;
    view.chroma_stride = view.row_stride;
  }
  return view;
}

// ---- sensor_msgs/PointCloud2 ----
struct RadarFields {  // the keys of a radar in the topic map; an empty name: the drivers' usual ones are looked for
  std::string velocity, intensity;
  int sign = 1;              // -1: the driver's velocity is positive when approaching
  bool compensated = false;  // the rig's kind of velocity: which of the usual names hold it
};

// Names that drivers give to a field, in lower case, the preferred first.
inline const std::vector<std::string> kVelocity = {"velocity",
                                                   "radial_velocity",
                                                   "range_rate",
                                                   "doppler",
                                                   "doppler_velocity",
                                                   "radial_speed",
                                                   "v_r",
                                                   "vr",
                                                   "v",
                                                   "radar_relative_radial_velocity",
                                                   "relative_radial_velocity",
                                                   "speed_radial",
                                                   "radial_vel",
                                                   "v_doppler"};
inline const std::vector<std::string> kCompensated = {"ground_relative_radial_velocity", "v_r_compensated",
                                                      "vr_compensated", "velocity_compensated", "v_comp"};
inline const std::vector<std::string> kIntensity = {"rcs",
                                                    "radar_cross_section",
                                                    "rcs_dbsm",
                                                    "snr",
                                                    "signal_to_noise_ratio",
                                                    "signal_noise_ratio",
                                                    "snr_db",
                                                    "power",
                                                    "reflected_power",
                                                    "amplitude",
                                                    "intensity",
                                                    "magnitude",
                                                    "rssi",
                                                    "reflectivity"};

struct Column {  // a field of the points
  std::size_t offset = 0;
  int datatype = 0;  // PointField's: 1 int8, 2 uint8, 3 int16, 4 uint16, 5 int32, 6 uint32, 7 float32, 8 float64
};

template <class T>
double number_at(const std::uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return static_cast<double>(value);
}

inline double read_number(const std::uint8_t* point, const Column& column) {
  const std::uint8_t* bytes = point + column.offset;
  switch (column.datatype) {
    case 1:
      return number_at<std::int8_t>(bytes);
    case 2:
      return number_at<std::uint8_t>(bytes);
    case 3:
      return number_at<std::int16_t>(bytes);
    case 4:
      return number_at<std::uint16_t>(bytes);
    case 5:
      return number_at<std::int32_t>(bytes);
    case 6:
      return number_at<std::uint32_t>(bytes);
    case 7:
      return number_at<float>(bytes);
    default:
      return number_at<double>(bytes);
  }
}

inline std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// The field with the first of the names; a field given by its user has one name. Throws Error source_bad_points.
template <class Cloud>
Column column_of(const Cloud& cloud, const std::vector<std::string>& names, const std::string& parameter) {
  static constexpr std::size_t kBytes[] = {0, 1, 1, 2, 2, 4, 4, 4, 8};
  std::string known;
  for (const auto& field : cloud.fields) known += (known.empty() ? "" : ", ") + field.name;
  for (const std::string& name : names)
    for (const auto& field : cloud.fields) {
      if (lower(field.name) != lower(name)) continue;
      const int type = field.datatype;
      if (type < 1 || type > 8 || field.offset + kBytes[type] > cloud.point_step)
        throw imkd::Error(imkd::Code::source_bad_points, "the field " + field.name + " does not lie in a point",
                          cloud.header.frame_id, "correct what the radar driver publishes");
      return {field.offset, type};
    }
  throw imkd::Error(imkd::Code::source_bad_points, "the points have no field " + names.front() + " (" + known + ")",
                    cloud.header.frame_id, "name the field in the parameter " + parameter);
}

inline std::vector<std::string> names_of(const std::string& given, const std::vector<std::string>& usual) {
  return given.empty() ? usual : std::vector<std::string>{given};
}

// Throws Error source_bad_points where the points are not as many bytes as the message says.
template <class Cloud>
void check_layout(const Cloud& cloud) {
  const std::uint64_t step = cloud.point_step, used = step * cloud.width, row = cloud.row_step, rows = cloud.height;
  const auto bad = [&](const std::string& what, const std::string& fix) {
    return imkd::Error(imkd::Code::source_bad_points, what, cloud.header.frame_id, fix);
  };
  if (cloud.is_bigendian) throw bad("the points are big-endian", "publish them little-endian");
  if (!step || row < used || cloud.data.size() < row * (rows - 1) + used)
    throw bad(std::to_string(rows) + " x " + std::to_string(cloud.width) + " points do not fit into " +
                  std::to_string(cloud.data.size()) + " bytes",
              "correct what the radar driver publishes");
}

// The column of the radial velocity, or the two of a velocity over ground, whose names are joined by a comma.
template <class Cloud>
std::vector<Column> velocity_of(const Cloud& cloud, const RadarFields& fields) {
  const auto comma = fields.velocity.find(',');
  if (comma != std::string::npos)
    return {column_of(cloud, {fields.velocity.substr(0, comma)}, "velocity_field"),
            column_of(cloud, {fields.velocity.substr(comma + 1)}, "velocity_field")};
  const auto& usual = fields.compensated ? kCompensated : kVelocity;
  return {column_of(cloud, names_of(fields.velocity, usual), "velocity_field")};
}

// (N, 5) x, y, z m in the radar frame, intensity dB, radial velocity m/s, receding positive. Throws Error
// source_bad_points.
template <class Cloud>
std::vector<float> radar_points(const Cloud& cloud, const RadarFields& fields) {
  std::vector<float> points;
  if (!cloud.width || !cloud.height) return points;  // a driver without a return may leave the fields out, too
  check_layout(cloud);
  const Column x = column_of(cloud, {"x"}, "none: x, y and z are needed");
  const Column y = column_of(cloud, {"y"}, "none: x, y and z are needed");
  const Column z = column_of(cloud, {"z"}, "none: x, y and z are needed");
  const Column intensity = column_of(cloud, names_of(fields.intensity, kIntensity), "intensity_field");
  const std::vector<Column> velocity = velocity_of(cloud, fields);
  points.reserve(std::size_t{cloud.width} * cloud.height * 5);
  for (std::uint64_t row = 0; row < cloud.height; ++row)
    for (std::uint64_t column = 0; column < cloud.width; ++column) {
      const std::uint8_t* point = cloud.data.data() + row * cloud.row_step + column * cloud.point_step;
      const double px = read_number(point, x), py = read_number(point, y);
      double radial = read_number(point, velocity[0]);
      if (velocity.size() == 2)
        radial = (radial * px + read_number(point, velocity[1]) * py) / std::max(std::hypot(px, py), 1e-6);
      for (const double value : {px, py, read_number(point, z), read_number(point, intensity), fields.sign * radial})
        points.push_back(static_cast<float>(value));
    }
  return points;
}

// ---- radar_msgs/RadarScan ----
// As radar_points; a return without an elevation (NaN) lies in the radar's plane.
template <class Scan>
std::vector<float> scan_points(const Scan& scan, int sign) {
  std::vector<float> points;
  points.reserve(scan.returns.size() * 5);
  for (const auto& one : scan.returns) {
    const double elevation = std::isnan(one.elevation) ? 0 : one.elevation, azimuth = one.azimuth;
    const double across = one.range * std::cos(elevation);
    for (const double value : {across * std::cos(azimuth), across * std::sin(azimuth), one.range * std::sin(elevation),
                               double(one.amplitude), sign * double(one.doppler_velocity)})
      points.push_back(static_cast<float>(value));
  }
  return points;
}

// ---- nav_msgs/Odometry ----
// Pose and twist of ego_frame; the twist of REP 105 is in child_frame_id. Throws Error source_bad_value.
template <class Odometry>
imkd::Ego ego_of(const Odometry& message, const std::string& ego_frame) {
  const auto bad = [&](const std::string& what, const std::string& fix) {
    return imkd::Error(imkd::Code::source_bad_value, what, "odometry", fix);
  };
  if (!message.child_frame_id.empty() && message.child_frame_id != ego_frame)
    throw bad("child_frame_id is '" + message.child_frame_id + "'", "publish the motion of '" + ego_frame + "'");
  const auto& p = message.pose.pose.position;
  const auto& q = message.pose.pose.orientation;
  const double norm = std::sqrt(q.w * q.w + q.x * q.x + q.y * q.y + q.z * q.z);
  if (!(std::abs(norm - 1) < 1e-2)) throw bad("the orientation's norm is " + std::to_string(norm), "publish norm 1");
  const double w = q.w / norm, x = q.x / norm, y = q.y / norm, z = q.z / norm;
  imkd::Ego ego;
  ego.T_world_ego = imkd::Mat4{1 - 2 * (y * y + z * z),
                               2 * (x * y - w * z),
                               2 * (x * z + w * y),
                               p.x,
                               2 * (x * y + w * z),
                               1 - 2 * (x * x + z * z),
                               2 * (y * z - w * x),
                               p.y,
                               2 * (x * z - w * y),
                               2 * (y * z + w * x),
                               1 - 2 * (x * x + y * y),
                               p.z,
                               0,
                               0,
                               0,
                               1};
  const auto& twist = message.twist.twist;
  ego.twist = imkd::Vec3{twist.linear.x, twist.linear.y, twist.angular.z};
  return ego;
}
}  // namespace imkd_ros
