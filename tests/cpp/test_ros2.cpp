// cpp/ros2: messages to images, points and ego motion; boxes and health to messages. Expected values by hand.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>

#include "convert.hpp"
#include "fields.hpp"
#include "guarded.hpp"
#include "publish.hpp"
#include "ros2_messages.hpp"

using namespace imkd_ros;

static imkd::Code code_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const imkd::Error& error) {
    EXPECT_FALSE(error.fix().empty());
    return error.code();
  }
  ADD_FAILURE() << "no error";
  return imkd::Code::spec_syntax;
}

// ---- times ----
TEST(Ros2, times_survive_both_ways) {
  const auto header = header_of<msg::Header>(1'700'000'000'123'456'789, "base_link");
  EXPECT_EQ(header.stamp.sec, 1'700'000'000);
  EXPECT_EQ(header.stamp.nanosec, 123'456'789u);
  EXPECT_EQ(header.frame_id, "base_link");
  EXPECT_EQ(ns_of(header.stamp), 1'700'000'000'123'456'789);
  EXPECT_EQ(seconds_of(600'000'000), 0.6);  // the nearest double, which 1e-9 times them is not
  EXPECT_EQ(seconds_of(-1'500'000'000), -1.5);
}

// ---- faults ----
TEST(Ros2, no_exception_of_a_frame_ends_the_process_and_only_a_failed_device_ends_the_node) {
  std::string said;
  bool device_failed = false;
  const auto after = [&](const std::function<void()>& body) {
    said = "nothing";
    guarded(body, [&](const std::string& text, bool failed) { said = text, device_failed = failed; });
    return said;
  };
  EXPECT_EQ(after([] {}), "nothing");
  EXPECT_EQ(after([] { throw std::runtime_error("context is invalid"); }), "context is invalid");  // a publisher's
  EXPECT_FALSE(device_failed);
  EXPECT_EQ(after([] { throw std::bad_alloc(); }), std::bad_alloc().what());
  EXPECT_FALSE(device_failed);
  EXPECT_EQ(after([] { throw 7; }), "an exception of unknown type");
  EXPECT_FALSE(device_failed);
  EXPECT_EQ(after([] { throw imkd::Error(imkd::Code::engine_run, "broken"); }).substr(0, 20), "error[E0504] broken");
  EXPECT_FALSE(device_failed);
  after([] { throw imkd::Error(imkd::Code::device_failed, "lost"); });
  EXPECT_TRUE(device_failed);
}

// ---- images ----
// 2 x 2 px, the pixel in row r and column c has red 10 r + c + 1, green and blue 100 and 200 more of it (mod 256).
static int red(int r, int c) { return 10 * r + c + 1; }

static msg::Image image_of(const std::string& encoding, const std::string& order, int padding) {
  msg::Image image;
  image.width = image.height = 2;
  image.encoding = encoding;
  image.step = static_cast<std::uint32_t>(2 * order.size() + padding);
  image.data.assign(image.step * 2, 0xee);
  for (int r = 0; r < 2; ++r)
    for (int c = 0; c < 2; ++c)
      for (std::size_t k = 0; k < order.size(); ++k)
        image.data[r * image.step + c * order.size() + k] =
            static_cast<std::uint8_t>(red(r, c) + (order[k] == 'g'   ? 50
                                                   : order[k] == 'b' ? 100
                                                                     : 0));
  return image;
}

static std::uint8_t at(const imkd::ImageView& view, int r, int c, int channel) {
  return view.data[r * view.row_stride + c * view.pixel_stride + channel * view.channel_stride];
}

TEST(Ros2, an_image_is_viewed_as_rgb_in_every_order_of_channels_and_with_padded_rows) {
  for (const auto& [encoding, order] :
       {std::pair<std::string, std::string>{"rgb8", "rgb"}, {"bgr8", "bgr"}, {"rgba8", "rgba"}, {"bgra8", "bgra"}})
    for (const int padding : {0, 5}) {
      const msg::Image image = image_of(encoding, order, padding);
      const imkd::ImageView view = image_view(image);
      EXPECT_EQ(view.width, 2);
      EXPECT_EQ(view.height, 2);
      for (int r = 0; r < 2; ++r)
        for (int c = 0; c < 2; ++c)
          for (int k = 0; k < 3; ++k) EXPECT_EQ(at(view, r, c, k), red(r, c) + 50 * k) << encoding << padding;
    }
}

TEST(Ros2, a_grey_image_has_three_equal_channels) {
  const msg::Image image = image_of("mono8", "r", 1);
  const imkd::ImageView view = image_view(image);
  for (int k = 0; k < 3; ++k) EXPECT_EQ(at(view, 1, 1, k), 12);
}

TEST(Ros2, nv12_has_its_chroma_behind_the_rows_of_luma) {
  msg::Image image;
  image.width = 4;
  image.height = 2;
  image.encoding = "nv12";
  image.step = 6;
  image.data.assign(18, 0);
  image.data[6 + 3] = 9;                       // Y of the last pixel
  image.data[12] = 7, image.data[12 + 1] = 8;  // the first U and V
  const imkd::ImageView view = image_view(image);
  ASSERT_NE(view.chroma, nullptr);
  EXPECT_EQ(view.data[view.row_stride + 3], 9);
  EXPECT_EQ(view.chroma[0], 7);
  EXPECT_EQ(view.chroma[1], 8);
  EXPECT_EQ(view.chroma_stride, 6);
}

TEST(Ros2, a_broken_image_is_an_error) {
  const msg::Image good = image_of("rgb8", "rgb", 0);
  const auto broken = [&](auto change) {
    msg::Image image = good;
    change(image);
    return code_of([&] { image_view(image); });
  };
  EXPECT_EQ(broken([](auto& m) { m.data.pop_back(); }), imkd::Code::source_bad_image);
  EXPECT_EQ(broken([](auto& m) { m.step = 5; }), imkd::Code::source_bad_image);
  EXPECT_EQ(broken([](auto& m) { m.width = 0; }), imkd::Code::source_bad_image);
  EXPECT_EQ(broken([](auto& m) { m.height = 0xffffffff; }), imkd::Code::source_bad_image);
  EXPECT_EQ(broken([](auto& m) { m.step = 0xffffffff; }), imkd::Code::source_bad_image);
  EXPECT_EQ(broken([](auto& m) { m.encoding = "nv12", m.width = 1; }), imkd::Code::source_bad_image);
  for (const char* encoding : {"", "yuv422", "bayer_rggb8", "RGB8"})
    EXPECT_EQ(broken([&](auto& m) { m.encoding = encoding; }), imkd::Code::source_bad_value);
}

// ---- points ----
template <class T>
static void put(std::vector<std::uint8_t>& data, std::size_t at, T value) {
  std::memcpy(data.data() + at, &value, sizeof value);
}

// Points of 32 bytes: x, y, z float32, a hole of 4 bytes, velocity float64, rcs int8; rows of `columns` and 3 bytes.
static msg::PointCloud2 cloud_of(std::uint32_t rows, std::uint32_t columns, const std::string& velocity) {
  msg::PointCloud2 cloud;
  cloud.height = rows;
  cloud.width = columns;
  cloud.point_step = 32;
  cloud.row_step = columns * 32 + 3;
  cloud.fields = {{"X", 0, 7}, {"y", 4, 7}, {"z", 8, 7}, {velocity, 16, 8}, {"RCS", 24, 1}};
  cloud.data.assign(rows * cloud.row_step, 0xee);
  for (std::uint32_t r = 0; r < rows; ++r)
    for (std::uint32_t c = 0; c < columns; ++c) {
      const std::size_t at = r * cloud.row_step + c * 32;
      const float base = float(10 * r + c);
      put(cloud.data, at, base + 3);
      put(cloud.data, at + 4, base + 4);
      put(cloud.data, at + 8, -base);
      put(cloud.data, at + 16, 0.5 * base - 1);
      put(cloud.data, at + 24, static_cast<std::int8_t>(-base));
    }
  return cloud;
}

TEST(Ros2, points_are_read_over_holes_types_and_padded_rows) {
  const std::vector<float> points = radar_points(cloud_of(2, 2, "range_rate"), {});
  const std::vector<float> expected = {3, 4, 0, 0, -1, 4, 5, -1, -1, -0.5, 13, 14, -10, -10, 4, 14, 15, -11, -11, 4.5};
  EXPECT_EQ(points, expected);
}

TEST(Ros2, the_sign_turns_the_velocity_alone) {
  RadarFields fields;
  fields.sign = -1;
  EXPECT_EQ(radar_points(cloud_of(1, 1, "v"), fields), (std::vector<float>{3, 4, 0, 0, 1}));
}

TEST(Ros2, every_type_of_field_is_read) {
  msg::PointCloud2 cloud = cloud_of(1, 1, "v");
  const auto intensity = [&](int type, auto value) {
    cloud.fields[4].datatype = static_cast<std::uint8_t>(type);
    put(cloud.data, 24, value);
    return radar_points(cloud, {})[3];
  };
  EXPECT_EQ(intensity(1, std::int8_t{-100}), -100);
  EXPECT_EQ(intensity(2, std::uint8_t{200}), 200);
  EXPECT_EQ(intensity(3, std::int16_t{-300}), -300);
  EXPECT_EQ(intensity(4, std::uint16_t{60000}), 60000);
  EXPECT_EQ(intensity(5, std::int32_t{-70000}), -70000);
  EXPECT_EQ(intensity(6, std::uint32_t{3000000000u}), 3e9f);
  EXPECT_EQ(intensity(7, 1.5f), 1.5f);
  EXPECT_EQ(intensity(8, -2.25), -2.25f);
}

TEST(Ros2, a_rig_whose_velocity_is_compensated_does_not_take_a_raw_field) {
  RadarFields fields;
  fields.compensated = true;
  EXPECT_EQ(code_of([&] { radar_points(cloud_of(1, 1, "range_rate"), fields); }), imkd::Code::source_bad_points);
  EXPECT_EQ(radar_points(cloud_of(1, 1, "v_r_compensated"), fields)[4], -1);
  EXPECT_EQ(code_of([&] { radar_points(cloud_of(1, 1, "v_r_compensated"), {}); }), imkd::Code::source_bad_points);
  fields.velocity = "range_rate";  // named: its user knows
  EXPECT_EQ(radar_points(cloud_of(1, 1, "range_rate"), fields)[4], -1);
}

TEST(Ros2, two_fields_of_a_velocity_are_projected_on_the_direction) {
  RadarFields fields;
  fields.velocity = "vx_comp,vy_comp";
  msg::PointCloud2 cloud = cloud_of(1, 1, "vx_comp");  // at (3, 4): direction (0.6, 0.8)
  cloud.fields.push_back({"vy_comp", 12, 7});
  put(cloud.data, 12, 5.0f);
  put(cloud.data, 16, 10.0);
  EXPECT_FLOAT_EQ(radar_points(cloud, fields)[4], 10 * 0.6f + 5 * 0.8f);
}

TEST(Ros2, a_sweep_without_a_return_is_empty) {
  EXPECT_TRUE(radar_points(cloud_of(1, 0, "v"), {}).empty());
  EXPECT_TRUE(radar_points(msg::PointCloud2{}, {}).empty());
}

TEST(Ros2, broken_points_are_an_error) {
  const auto broken = [&](auto change) {
    msg::PointCloud2 cloud = cloud_of(2, 2, "v");
    change(cloud);
    return code_of([&] { radar_points(cloud, {}); });
  };
  const auto bad = imkd::Code::source_bad_points;
  EXPECT_EQ(broken([](auto& m) { m.data.resize(m.row_step + 63); }), bad);
  EXPECT_EQ(broken([](auto& m) { m.row_step = 63; }), bad);
  EXPECT_EQ(broken([](auto& m) { m.point_step = 0; }), bad);
  EXPECT_EQ(broken([](auto& m) { m.height = 0xffffffff; }), bad);
  EXPECT_EQ(broken([](auto& m) { m.width = 0xffffffff; }), bad);
  EXPECT_EQ(broken([](auto& m) { m.is_bigendian = true; }), bad);
  EXPECT_EQ(broken([](auto& m) { m.fields[0].name = "range"; }), bad);
  EXPECT_EQ(broken([](auto& m) { m.fields[3].offset = 25; }), bad);  // 8 bytes at 25 of 32
  EXPECT_EQ(broken([](auto& m) { m.fields[3].offset = 0xffffffff; }), bad);
  EXPECT_EQ(broken([](auto& m) { m.fields[3].datatype = 9; }), bad);
  EXPECT_EQ(broken([](auto& m) { m.fields.pop_back(); }), bad);
}

TEST(Ros2, a_scan_is_polar_and_lies_in_the_radar_s_plane_where_it_has_no_elevation) {
  msg::RadarScan scan;
  const float quarter = float(M_PI / 2), eighth = float(M_PI / 4), nan = std::nanf("");
  scan.returns = {{10, 0, 0, -3, 7}, {10, quarter, nan, 2, 8}, {10, quarter, eighth, nan, 9}};
  const std::vector<float> points = scan_points(scan, -1);
  const float half = 10 * std::sqrt(0.5f);
  const std::vector<float> expected = {10, 0, 0, 7, 3, 0, 10, 0, 8, -2, 0, half, half, 9, nan};
  ASSERT_EQ(points.size(), expected.size());
  for (std::size_t i = 0; i + 1 < expected.size(); ++i) EXPECT_NEAR(points[i], expected[i], 1e-5) << i;
  EXPECT_TRUE(std::isnan(points.back()));  // the detector discards it and counts it
  EXPECT_TRUE(scan_points(msg::RadarScan{}, 1).empty());
}

// ---- odometry ----
TEST(Ros2, odometry_is_a_pose_and_the_twist_of_the_vehicle) {
  msg::Odometry message;
  message.child_frame_id = "base_link";
  message.pose.pose = {{10, 20, 30}, {0, 0, std::sqrt(0.5), std::sqrt(0.5)}};  // a quarter turn to the left
  message.twist.twist = {{5, 0.5, 9}, {7, 8, 0.25}};
  const imkd::Ego ego = ego_of(message, "base_link");
  const imkd::Mat4 expected = {0, -1, 0, 10, 1, 0, 0, 20, 0, 0, 1, 30, 0, 0, 0, 1};
  for (int i = 0; i < 16; ++i) EXPECT_NEAR((*ego.T_world_ego)[i], expected[i], 1e-12) << i;
  EXPECT_EQ(*ego.twist, (imkd::Vec3{5, 0.5, 0.25}));
}

TEST(Ros2, a_rotation_about_any_axis_is_that_of_rodrigues) {
  const double angle = 0.7, n[] = {2 / 7.0, 3 / 7.0, 6 / 7.0}, s = std::sin(angle / 2);
  msg::Odometry message;
  message.pose.pose.orientation = {n[0] * s, n[1] * s, n[2] * s, std::cos(angle / 2)};
  const imkd::Ego ego = ego_of(message, "base_link");
  const imkd::Mat4 expected = imkd::rigid({n[0] * angle, n[1] * angle, n[2] * angle}, {0, 0, 0});
  for (int i = 0; i < 16; ++i) EXPECT_NEAR((*ego.T_world_ego)[i], expected[i], 1e-12) << i;
}

TEST(Ros2, an_odometry_of_another_frame_or_without_a_rotation_is_an_error) {
  msg::Odometry message;
  message.child_frame_id = "imu";
  EXPECT_EQ(code_of([&] { ego_of(message, "base_link"); }), imkd::Code::source_bad_value);
  message.child_frame_id = "";
  EXPECT_NO_THROW(ego_of(message, "base_link"));
  for (const double w : {0.0, 0.9, std::nan("")}) {
    message.pose.pose.orientation.w = w;
    EXPECT_EQ(code_of([&] { ego_of(message, "base_link"); }), imkd::Code::source_bad_value) << w;
  }
}

// ---- boxes ----
static NamedBox car() {
  return {{10, 2, 1, 4, 2, 1.5, float(M_PI / 2), 3, -4, 0.75, 1}, "car", "17"};  // along +y
}

TEST(Ros2, a_box_has_its_length_along_its_own_x) {
  const auto array = boxes_message<msg::Detection3DArray>({car()}, 1'500'000'000, "base_link");
  EXPECT_EQ(array.header.frame_id, "base_link");
  EXPECT_EQ(array.header.stamp.nanosec, 500'000'000u);
  ASSERT_EQ(array.detections.size(), 1u);
  const msg::Detection3D& box = array.detections[0];
  EXPECT_EQ(box.id, "17");
  EXPECT_EQ(box.header.frame_id, "base_link");
  EXPECT_EQ(box.bbox.size.x, 4);
  EXPECT_EQ(box.bbox.size.y, 2);
  EXPECT_EQ(box.bbox.size.z, 1.5);
  EXPECT_EQ(box.bbox.center.position.x, 10);
  EXPECT_NEAR(box.bbox.center.orientation.z, std::sqrt(0.5), 1e-7);
  EXPECT_NEAR(box.bbox.center.orientation.w, std::sqrt(0.5), 1e-7);
  ASSERT_EQ(box.results.size(), 1u);
  EXPECT_EQ(box.results[0].hypothesis.class_id, "car");
  EXPECT_EQ(box.results[0].hypothesis.score, 0.75);
  EXPECT_EQ(box.results[0].pose.pose.position.y, 2);
}

TEST(Ros2, markers_begin_by_deleting_those_of_the_last_frame) {
  const auto array = markers_message<msg::MarkerArray>({car()}, 0, "base_link");
  ASSERT_EQ(array.markers.size(), 4u);
  EXPECT_EQ(array.markers[0].action, msg::Marker::DELETEALL);
  EXPECT_EQ(array.markers[1].type, msg::Marker::CUBE);
  EXPECT_EQ(array.markers[1].scale.x, 4);
  EXPECT_EQ(array.markers[2].text, "car #17 0.75");
  EXPECT_EQ(array.markers[2].pose.position.z, 1 + 0.75 + 0.5);
  ASSERT_EQ(array.markers[3].type, msg::Marker::ARROW);
  EXPECT_EQ(array.markers[3].points[1].x, 10 + 3);
  EXPECT_EQ(array.markers[3].points[1].y, 2 - 4);
  for (std::size_t i = 1; i < 4; ++i) EXPECT_GT(array.markers[i].lifetime.nanosec, 0u);
}

TEST(Ros2, an_unknown_velocity_has_no_arrow_and_classes_differ_in_colour) {
  NamedBox box = car();
  box.box.vx = box.box.vy = std::nanf("");
  const auto array = markers_message<msg::MarkerArray>({box, car()}, 0, "");
  EXPECT_EQ(array.markers.size(), 1u + 2 + 3);
  for (int a = 0; a < 10; ++a)
    for (int b = 0; b < a; ++b) {
      const auto p = color_of<msg::Color>(a, 1), q = color_of<msg::Color>(b, 1);
      EXPECT_GT(std::abs(p.r - q.r) + std::abs(p.g - q.g) + std::abs(p.b - q.b), 0.05f) << a << " " << b;
    }
}

TEST(Ros2, no_box_still_deletes_the_markers) {
  EXPECT_EQ(markers_message<msg::MarkerArray>({}, 0, "").markers.size(), 1u);
  EXPECT_EQ(boxes_message<msg::Detection3DArray>({}, 0, "").detections.size(), 0u);
}

// ---- diagnostics ----
static std::string value_of(const msg::DiagnosticStatus& status, const std::string& key) {
  for (const auto& value : status.values)
    if (value.key == key) return value.value;
  return "none";
}

TEST(Ros2, the_names_of_states_are_those_of_the_library) {
  for (int i = 0; i <= static_cast<int>(imkd::SensorState::unusable); ++i)
    EXPECT_STREQ(kStateNames[i], imkd::EnumNames<imkd::SensorState>::names[i]);
  for (int i = 0; i <= static_cast<int>(imkd::Mode::blind); ++i)
    EXPECT_STREQ(kModeNames[i], imkd::EnumNames<imkd::Mode>::names[i]);
  for (int i = 0; i <= static_cast<int>(imkd::MotionSource::none); ++i)
    EXPECT_STREQ(kMotionNames[i], imkd::EnumNames<imkd::MotionSource>::names[i]);
}

TEST(Ros2, a_sensor_is_ok_warned_of_or_an_error) {
  SensorReport sensor;
  sensor.name = "front";
  sensor.refused = 3;
  sensor.last_refusal = "late";
  const auto level = [&](imkd::SensorState state) {
    sensor.state = state;
    return status_of<msg::DiagnosticStatus>(sensor, "node").level;
  };
  EXPECT_EQ(level(imkd::SensorState::ok), msg::DiagnosticStatus::OK);
  EXPECT_EQ(level(imkd::SensorState::late), msg::DiagnosticStatus::WARN);
  for (const auto state : {imkd::SensorState::stale, imkd::SensorState::invalid, imkd::SensorState::missing,
                           imkd::SensorState::frozen, imkd::SensorState::lost, imkd::SensorState::unusable})
    EXPECT_EQ(level(state), msg::DiagnosticStatus::ERROR);
  const auto status = status_of<msg::DiagnosticStatus>(sensor, "node");
  EXPECT_EQ(status.name, "node: front");
  EXPECT_EQ(status.message, "unusable");
  EXPECT_EQ(value_of(status, "refused"), "3");
  EXPECT_EQ(value_of(status, "last refusal"), "late");
}

static DetectorReport good_report() {
  DetectorReport report;
  report.health.mode = imkd::Mode::full;
  report.has_result = true;
  report.silence = 0.1;
  report.max_silence = 1;
  report.max_latency = 0.2;
  report.latencies_s = {0.05, 0.15, 0.1};
  report.infer_s = {0.04, 0.02, 0.03};
  return report;
}

TEST(Ros2, latency_is_reported_by_its_median_and_maximum) {
  const auto status = status_of<msg::DiagnosticStatus>(good_report(), "node");
  EXPECT_EQ(status.level, msg::DiagnosticStatus::OK);
  EXPECT_EQ(value_of(status, "latency median ms"), "100.0");
  EXPECT_EQ(value_of(status, "latency max ms"), "150.0");
  EXPECT_EQ(value_of(status, "infer median ms"), "30.0");
  EXPECT_EQ(value_of(status, "frames"), "3");
}

TEST(Ros2, what_hurts_the_boxes_raises_the_level) {
  const auto status = [](auto change) {
    DetectorReport report = good_report();
    change(report);
    return status_of<msg::DiagnosticStatus>(report, "node");
  };
  using Status = msg::DiagnosticStatus;
  EXPECT_EQ(status([](auto& r) { r.health.mode = imkd::Mode::partial; }).level, Status::WARN);
  EXPECT_EQ(status([](auto& r) { r.health.warnings.resize(1); }).level, Status::WARN);
  EXPECT_EQ(status([](auto& r) { r.latencies_s = {0.3}; }).level, Status::WARN);
  EXPECT_EQ(status([](auto& r) { r.health.mode = imkd::Mode::blind; }).level, Status::ERROR);
  const auto silent = status([](auto& r) { r.silence = 1.5, r.latencies_s.clear(); });
  EXPECT_EQ(silent.level, Status::ERROR);
  EXPECT_EQ(silent.message, "no result for 1500.0 ms");
  const auto failed = status([](auto& r) { r.fault = "error[E0504] it broke"; });
  EXPECT_EQ(failed.level, Status::ERROR);
  EXPECT_EQ(failed.message, "error[E0504] it broke");
  EXPECT_EQ(status_of<Status>(DetectorReport{}, "node").message, "no frame yet");
  EXPECT_EQ(status_of<Status>(DetectorReport{}, "node").level, Status::ERROR);
}
