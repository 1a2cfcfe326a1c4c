// ROS 2 messages: images, point clouds, radar scans and odometry with fields that contradict each other.
#include <cmath>

#include "convert.hpp"
#include "ros2_messages.hpp"
#include "target.hpp"

using namespace imkd;
using fuzz::Input;

static void read_image(Input& input) {
  static const char* const encodings[] = {"rgb8", "bgr8", "rgba8", "bgra8", "mono8", "nv12", "yuv422"};
  msg::Image image;
  image.encoding = encodings[input.below(7)];
  image.width = input.value<std::uint32_t>();
  image.height = input.value<std::uint32_t>();
  image.step = input.value<std::uint32_t>();
  image.data = input.values<std::uint8_t>(std::min<std::size_t>(input.left(), 4096));
  ImageView view;
  if (!fuzz::accepted([&] { view = imkd_ros::image_view(image); })) return;
  unsigned sum = 0;
  for (int row : {0, view.height - 1})
    for (int column : {0, view.width - 1})
      for (int channel = 0; channel < (view.chroma ? 1 : 3); ++channel)
        sum += view.data[row * view.row_stride + (view.chroma ? column : column * view.pixel_stride) +
                         channel * view.channel_stride];
  if (view.chroma) sum += view.chroma[(view.height / 2 - 1) * view.chroma_stride + view.width - 1];
  fuzz::require(sum <= 12 * 255 + 255, "a view shows bytes");
}

static void read_cloud(Input& input) {
  static const char* const names[] = {"x", "y", "z", "rcs", "velocity", "vx", "vy", "v_r_compensated"};
  msg::PointCloud2 cloud;
  imkd_ros::RadarFields fields;
  fields.compensated = input.flag();
  if (input.flag()) fields.velocity = "vx,vy";
  for (int count = input.below(10); count > 0; --count) {
    msg::PointField field;
    const int name = input.below(9);
    field.name = name < 8 ? names[name] : input.name();
    field.offset = input.flag() ? input.value<std::uint32_t>() : input.value<std::uint8_t>();
    field.datatype = input.value<std::uint8_t>();
    cloud.fields.push_back(field);
  }
  cloud.is_bigendian = input.below(16) == 0;
  cloud.point_step = input.flag() ? input.value<std::uint32_t>() : input.value<std::uint8_t>();
  cloud.row_step = input.flag() ? input.value<std::uint32_t>() : input.value<std::uint8_t>();
  cloud.width = input.flag() ? input.value<std::uint32_t>() : input.value<std::uint8_t>();
  cloud.height = input.flag() ? input.value<std::uint32_t>() : 1;
  cloud.data = input.values<std::uint8_t>(std::min<std::size_t>(input.left(), 4096));
  std::vector<float> points;
  if (fuzz::accepted([&] { points = imkd_ros::radar_points(cloud, fields); }))
    fuzz::require(points.size() == 5ull * cloud.width * cloud.height, "every point of a cloud is read");
}

static void read_scan(Input& input) {
  msg::RadarScan scan;
  for (int count = input.below(16); count > 0; --count) {
    msg::RadarReturn& one = scan.returns.emplace_back();
    for (float* number : {&one.range, &one.azimuth, &one.elevation, &one.doppler_velocity, &one.amplitude})
      *number = input.value<float>();
  }
  fuzz::require(imkd_ros::scan_points(scan, -1).size() == 5 * scan.returns.size(), "every return of a scan is read");
}

static void read_odometry(Input& input) {
  msg::Odometry odometry;
  odometry.child_frame_id = input.flag() ? "base_link" : input.name();
  odometry.header.stamp = {input.value<std::int32_t>(), input.value<std::uint32_t>()};
  imkd_ros::ns_of(odometry.header.stamp);
  auto& pose = odometry.pose.pose;
  auto& twist = odometry.twist.twist;
  for (double* number : {&pose.orientation.x, &pose.orientation.y, &pose.orientation.z, &pose.orientation.w,
                         &pose.position.x, &pose.position.y, &pose.position.z, &twist.linear.x, &twist.angular.z})
    *number = input.value<double>();
  fuzz::accepted([&] { imkd_ros::ego_of(odometry, "base_link"); });
}

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  void (*const readers[])(Input&) = {read_image, read_cloud, read_scan, read_odometry};
  readers[input.below(4)](input);
  return 0;
}
