#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "fakes.hpp"
#include "imkd/coverage.hpp"

using namespace imkd;
using namespace imkd::fakes;

namespace {

struct Stand {
  std::shared_ptr<FakeEngine> camera = camera_engine(), bev = bev_engine();
  SensorRig rig = small_rig();
  Moment m = moment(rig);
  Detector detector;
  explicit Stand(int threads = 1) : detector(small_spec(), rig, camera, bev, options(threads)) {}
  static DetectorOptions options(int threads) {
    DetectorOptions o;
    o.threads = threads;
    return o;
  }
  const Result& infer() { return detector.infer(m.frames); }
  std::vector<float> tensor(const std::string& name) {
    for (const auto& t : detector.tensors()) {
      std::size_t count = 1;
      for (auto extent : t.shape) count *= static_cast<std::size_t>(extent);
      if (name == t.name) return {t.data, t.data + count};
    }
    return {};
  }
};

bool all_zero(const std::vector<float>& values, std::size_t begin, std::size_t end) {
  for (std::size_t i = begin; i < end; ++i)
    if (values[i] != 0) return false;
  return end > begin;
}

TEST(Detector, finds_boxes_and_reports_full_health) {
  Stand s;
  const Result& r = s.infer();
  EXPECT_GT(r.detections.size(), 5u);
  EXPECT_EQ(r.timestamp_ns, 1'000'000'000);
  EXPECT_EQ(r.health.mode, Mode::full);
  EXPECT_EQ(r.health.radar_points + r.health.radar_points_outside, 400);
  for (const Detection& d : r.detections) EXPECT_GE(d.score, 0.1f);
  for (int stage = 0; stage < kStages; ++stage)
    EXPECT_EQ(r.timings_us[stage] > 0, stage != kWarp) << kStageNames[stage];
}

TEST(Detector, same_bits_for_every_thread_count_and_repeat) {
  std::vector<Detection> first;
  std::vector<std::vector<float>> tensors;
  for (int threads : {1, 2, 3, 4}) {
    Stand s(threads);
    for (int repeat = 0; repeat < 100; ++repeat) {
      const Result& r = s.infer();
      if (first.empty()) {
        first = r.detections;
        for (const char* name : {"images", "camera_bev", "radar_grid"}) tensors.push_back(s.tensor(name));
      }
      ASSERT_EQ(r.detections.size(), first.size());
      ASSERT_EQ(std::memcmp(r.detections.data(), first.data(), first.size() * sizeof(Detection)), 0) << threads;
    }
    int i = 0;
    for (const char* name : {"images", "camera_bev", "radar_grid"}) EXPECT_EQ(s.tensor(name), tensors[i++]) << name;
  }
}

TEST(Detector, absent_camera_puts_nothing_into_the_grid) {
  Stand s;
  const std::vector<float> full = (s.infer(), s.tensor("camera_bev"));
  for (int absent : {0, 1}) {
    Stand t;
    t.m.frames.cameras[absent].data = nullptr;
    const Result& r = t.infer();
    EXPECT_EQ(r.health.cameras[absent], SensorState::missing);
    EXPECT_EQ(r.health.cameras[1 - absent], SensorState::ok);
    EXPECT_EQ(r.health.mode, Mode::partial);
    EXPECT_EQ(t.camera->runs, 1);
    const auto images = t.tensor("images"), depth = t.tensor("depth"), bev = t.tensor("camera_bev");
    EXPECT_TRUE(all_zero(images, absent * 1536, (absent + 1) * 1536));
    EXPECT_TRUE(all_zero(depth, absent * 32, (absent + 1) * 32));
    // The front camera covers x > 0 only, the back one x < 0: column 8 is x = 0.
    for (int row = 0; row < 16; ++row) {
      const std::size_t at = 3 * 256 + row * 16;
      EXPECT_TRUE(absent == 0 ? all_zero(bev, at + 8, at + 16) : all_zero(bev, at, at + 8));
      EXPECT_EQ(std::memcmp(&bev[at + (absent == 0 ? 0 : 8)], &full[at + (absent == 0 ? 0 : 8)], 8 * sizeof(float)), 0);
    }
  }
}

TEST(Detector, without_cameras_their_network_is_not_run) {
  Stand s;
  s.infer();
  for (ImageView& image : s.m.frames.cameras) image.data = nullptr;
  const Result& r = s.infer();
  EXPECT_EQ(s.camera->runs, 1);
  EXPECT_EQ(s.bev->runs, 2);
  EXPECT_EQ(r.health.mode, Mode::radar_only);
  EXPECT_GT(r.detections.size(), 0u);
  for (const char* name : {"images", "depth", "context", "camera_bev"}) {
    const auto values = s.tensor(name);
    EXPECT_TRUE(all_zero(values, 0, values.size())) << name;
  }
}

TEST(Detector, without_radars_the_grid_is_zero) {
  Stand s;
  s.infer();
  s.m.frames.sweeps.clear();
  const Result& r = s.infer();
  EXPECT_EQ(r.health.mode, Mode::camera_only);
  EXPECT_EQ(r.health.radars, (std::vector<SensorState>{SensorState::missing, SensorState::missing}));
  EXPECT_EQ(r.health.radar_points, 0);
  const auto grid = s.tensor("radar_grid");
  EXPECT_TRUE(all_zero(grid, 0, grid.size()));
}

TEST(Detector, blind_reports_no_boxes) {
  Stand s;
  EXPECT_GT(s.infer().detections.size(), 0u);
  s.m.frames.sweeps.clear();
  for (ImageView& image : s.m.frames.cameras) image.data = nullptr;
  const Result& r = s.infer();
  EXPECT_EQ(r.health.mode, Mode::blind);
  EXPECT_TRUE(r.detections.empty());
}

TEST(Detector, age_makes_a_sensor_late_then_stale) {
  const double max_age = small_spec().radar.max_age;
  for (const auto& [share, state] : std::vector<std::pair<double, SensorState>>{{0.4, SensorState::ok},
                                                                                {0.6, SensorState::late},
                                                                                {-0.6, SensorState::late},
                                                                                {1.1, SensorState::stale},
                                                                                {-1.1, SensorState::stale}}) {
    Stand s;
    const auto then = s.m.frames.timestamp_ns - static_cast<std::int64_t>(share * max_age * 1e9);
    const auto exposure = s.m.frames.timestamp_ns - static_cast<std::int64_t>(share * kSensorPeriod * 1e9);
    s.m.frames.camera_timestamps_ns = {exposure, s.m.frames.timestamp_ns};  // an image has a limit of its own
    s.m.frames.sweeps[1].timestamp_ns = then;
    s.m.frames.ego.twist = Vec3{};  // of a vehicle that stands
    const Result& r = s.infer();
    EXPECT_EQ(r.health.cameras[0], state) << share;
    EXPECT_EQ(r.health.radars[1], state) << share;
    EXPECT_EQ(r.health.mode, state == SensorState::stale ? Mode::partial : Mode::full);
    const auto depth = s.tensor("depth");
    EXPECT_EQ(all_zero(depth, 0, 32), state == SensorState::stale);
    EXPECT_EQ(r.health.radar_points + r.health.radar_points_outside, state == SensorState::stale ? 200 : 400);
  }
}

TEST(Detector, a_sweep_that_an_unknown_motion_displaces_makes_the_frame_partial) {
  for (const auto& [age_ms, displaced] : {std::pair{0, false}, {99, false}, {101, true}, {500, true}, {-500, true}}) {
    Stand s;
    s.m.frames.sweeps[1].timestamp_ns -= age_ms * 1'000'000LL;
    const auto warned = [](const Result& r) {
      return std::any_of(r.health.warnings.begin(), r.health.warnings.end(),
                         [](const Warning& w) { return w.code == WarningCode::ego_motion; });
    };
    const Result& r = s.infer();
    EXPECT_EQ(r.health.ego_motion, MotionSource::none);
    EXPECT_TRUE(std::isnan(r.health.ego_speed));
    EXPECT_EQ(r.health.mode, displaced ? Mode::partial : Mode::full) << age_ms;
    EXPECT_EQ(warned(r), displaced) << age_ms;
    s.m.frames.ego.twist = Vec3{2, 0, 0};
    EXPECT_EQ(s.infer().health.mode, Mode::full) << age_ms;
    EXPECT_EQ(s.infer().health.ego_motion, MotionSource::twist);
    EXPECT_EQ(s.infer().health.ego_speed, 2);
    EXPECT_FALSE(warned(s.infer()));
  }
}

// At 20 m/s and 40 ms the vehicle was 0.8 m further back: the table is that of a camera mounted there.
TEST(Detector, a_camera_lifts_from_where_the_vehicle_was_at_its_exposure) {
  const ModelSpec spec = small_spec();
  Stand moving, standing;
  moving.m.frames.ego.twist = Vec3{20, 0, 0};
  moving.m.frames.camera_timestamps_ns = {moving.m.frames.timestamp_ns - 40'000'000, moving.m.frames.timestamp_ns};
  SensorRig rig = small_rig();
  const auto lifted = [](Stand& s) {
    s.infer();
    return s.tensor("camera_bev");
  };
  const auto at_rest = lifted(standing);
  const auto in_motion = lifted(moving);
  EXPECT_NE(at_rest, in_motion);
  rig.cameras[0].T_ego_camera[3] -= 0.8125;  // 0.8 m in steps of 1/16 of a cell of 1 m
  standing.detector.set_rig(rig);
  EXPECT_EQ(lifted(standing), in_motion);

  // Whatever came before.
  moving.m.frames.camera_timestamps_ns[1] -= 90'000'000;
  lifted(moving);
  moving.m.frames.camera_timestamps_ns[1] += 90'000'000;
  EXPECT_EQ(lifted(moving), in_motion);
}

TEST(Detector, times_at_the_ends_of_int64_are_stale_not_undefined) {
  for (std::int64_t time : {std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()}) {
    Stand s;
    s.m.frames.camera_timestamps_ns = {time, time};
    for (RadarSweep& sweep : s.m.frames.sweeps) sweep.timestamp_ns = time;
    EXPECT_EQ(s.infer().health.mode, Mode::blind);
  }
}

TEST(Detector, nan_points_are_counted_and_a_radar_of_nothing_else_is_invalid) {
  Stand s;
  for (int i = 0; i < 200; ++i)
    s.m.points[0][i * 5 + i % 5] = i % 2 ? std::nanf("") : std::numeric_limits<float>::infinity();
  s.m.points[1][3] = std::nanf("");
  const Result& r = s.infer();
  EXPECT_EQ(r.health.radars[0], SensorState::invalid);
  EXPECT_EQ(r.health.radars[1], SensorState::ok);
  EXPECT_EQ(r.health.radar_points_invalid, 201);
  EXPECT_EQ(r.health.mode, Mode::partial);
}

TEST(Detector, a_radar_of_which_no_point_is_used_is_unusable) {
  Stand s;
  for (int i = 0; i < 200; ++i) s.m.points[0][i * 5] = 500;
  const Result& r = s.infer();
  EXPECT_EQ(r.health.radars, (std::vector<SensorState>{SensorState::unusable, SensorState::ok}));
  EXPECT_EQ(r.health.mode, Mode::partial);
  s.m.points[0][199 * 5] = 1;  // one point in the grid is enough
  s.m.points[0][199 * 5 + 1] = 0;
  EXPECT_EQ(s.infer().health.mode, Mode::full);
  s.m.points[0][199 * 5] = 500;
  for (int i = 0; i < 200; ++i) s.m.points[1][i * 5 + 1] = -500;
  EXPECT_EQ(s.infer().health.mode, Mode::camera_only);
}

TEST(Detector, a_radar_whose_points_all_overflow_is_unusable) {
  Stand s;
  ModelSpec spec = small_spec();
  int in_grid = 0;  // of the first radar, which comes first: both sweeps are as old
  for (int i = 0; i < 200; ++i) in_grid += s.m.points[0][i * 5] < 8 && std::abs(s.m.points[0][i * 5 + 1]) < 8;
  for (int more : {0, 1}) {
    spec.radar.max_points = in_grid + more;
    s.detector = Detector(spec, s.rig, s.camera, s.bev, Stand::options(1));
    const Result& r = s.infer();
    EXPECT_EQ(r.health.radar_points, in_grid + more);
    EXPECT_GT(r.health.radar_points_overflow, 0);
    EXPECT_EQ(r.health.radars,
              (std::vector<SensorState>{SensorState::ok, more ? SensorState::ok : SensorState::unusable}));
  }
}

TEST(Detector, a_packet_of_zeros_is_invalid) {
  Stand s;
  std::fill(s.m.points[1].begin(), s.m.points[1].end(), 0.f);
  const Result& r = s.infer();
  EXPECT_EQ(r.health.radars, (std::vector<SensorState>{SensorState::ok, SensorState::invalid}));
  EXPECT_EQ(r.health.radar_points_invalid, 200);
  EXPECT_EQ(r.health.mode, Mode::partial);
}

// The back camera stands at z = -4.5 m and looks up: each of its pixels has a point in the grid, none runs across it.
SensorRig with_a_camera_that_looks_up() {
  SensorRig rig = small_rig();
  rig.cameras[1].T_ego_camera = identity4();
  rig.cameras[1].T_ego_camera[11] = -4.5;
  return rig;
}

TEST(Detector, a_camera_that_looks_at_the_sky_is_unusable) {
  Stand s;
  ModelSpec spec = small_spec();
  SensorRig narrow = with_a_camera_that_looks_up();
  narrow.cameras[1].K[0] = narrow.cameras[1].K[4] = 200;
  const std::vector<CameraCoverage> coverage = camera_coverage(spec, narrow);
  EXPECT_TRUE(coverage[0].usable() && coverage[0].hint.empty());
  EXPECT_EQ(coverage[1].in_grid, 1);
  EXPECT_EQ(coverage[1].across, 0);
  EXPECT_NE(coverage[1].hint.find("sky"), std::string::npos);
  s.detector.set_rig(narrow);
  const Result& r = s.infer();
  EXPECT_EQ(r.health.cameras, (std::vector<SensorState>{SensorState::ok, SensorState::unusable}));
  EXPECT_EQ(r.health.mode, Mode::partial);
  const auto depth = s.tensor("depth");
  EXPECT_TRUE(all_zero(depth, 32, 64));
  const ImageView image = s.m.frames.cameras[1];
  s.m.frames.cameras[1].data = nullptr;  // a camera that is not delivered is missing, usable or not
  EXPECT_EQ(s.infer().health.cameras[1], SensorState::missing);
  s.detector.set_rig(s.rig);
  s.m.frames.cameras[1] = image;
  EXPECT_EQ(s.infer().health.mode, Mode::full);
}

TEST(Detector, a_rig_that_sees_nothing_is_refused_with_its_cause_and_changes_nothing) {
  Stand s;
  const std::vector<Detection> before = s.infer().detections;
  const auto text_of = [&](auto&& change) {
    SensorRig rig = s.rig;
    for (CameraCalibration& camera : rig.cameras) change(camera);
    try {
      s.detector.set_rig(rig);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::rig_bad_value);
      return std::string(error.what());
    }
    return std::string();
  };
  const std::string far = text_of([](CameraCalibration& c) { c.T_ego_camera[3] = c.T_ego_camera[7] = 1500; });
  EXPECT_NE(far.find("A_FRONT: 0 %"), std::string::npos) << far;
  EXPECT_NE(far.find("2121 m long: T_ego_camera is in metres"), std::string::npos) << far;
  const std::string normalised = text_of([](CameraCalibration& c) {
    for (int i = 0; i < 3; ++i) c.K[i] /= c.width, c.K[3 + i] /= c.height;
  });
  EXPECT_NE(normalised.find("normalised to 0..1"), std::string::npos) << normalised;
  const std::string body = text_of([](CameraCalibration& c) { c.T_ego_camera = identity4(), c.T_ego_camera[11] = 4; });
  EXPECT_NE(body.find("points at the sky"), std::string::npos) << body;
  const Result& r = s.infer();
  ASSERT_EQ(r.detections.size(), before.size());
  EXPECT_EQ(std::memcmp(r.detections.data(), before.data(), before.size() * sizeof(Detection)), 0);
}

TEST(Detector, poses_are_orthonormalised) {
  const auto grid = [](bool exact) {
    Stand s;
    Mat4 T = identity4();
    T[0] = T[5] = 0.8660, T[1] = -0.5, T[4] = 0.5;  // 30 degrees in four decimals: 4e-5 off
    const double length = exact ? std::hypot(T[0], T[1]) : 1;
    for (int i : {0, 1, 4, 5}) T[i] /= length;
    T[10] = 1;
    s.m.frames.ego.T_world_ego = T;
    for (RadarSweep& sweep : s.m.frames.sweeps) sweep.T_world_ego = T, (*sweep.T_world_ego)[3] -= 1;
    s.infer();
    return s.tensor("radar_grid");
  };
  const std::vector<float> a = grid(true), b = grid(false);
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-5) << i;
}

// Poses of sweeps 20 to 400 ms before the frame and of a camera 10 ms after it, at 10 m/s.
Moment moving(const SensorRig& rig) {
  Moment m = moment(rig);
  const auto at = [](double x) {
    Mat4 T = identity4();
    T[3] = x;
    return T;
  };
  m.frames.sweeps.clear();
  for (const int age_ms : {20, 100, 200, 300, 400}) {
    const auto& points = m.points.emplace_back(moment(rig, static_cast<unsigned>(age_ms)).points[0]);
    m.frames.sweeps.push_back({0, m.frames.timestamp_ns - age_ms * 1'000'000, points.data(), 200, at(-0.01 * age_ms)});
  }
  m.frames.camera_timestamps_ns.assign(2, m.frames.timestamp_ns + 10'000'000);
  m.frames.camera_T_world_ego = {at(0.1), std::nullopt};
  m.frames.ego = {at(0), Vec3{10, 0, 0}};
  return m;
}

bool ego_invalid(const Result& r) {
  return std::any_of(r.health.warnings.begin(), r.health.warnings.end(),
                     [](const Warning& warning) { return warning.code == WarningCode::ego_invalid; });
}

TEST(Detector, poses_beyond_a_jump_of_the_localisation_are_left_out) {
  const auto grids = [](auto&& change) {
    Stand s;
    s.m = moving(s.rig);
    change(s.m.frames);
    const bool warned = ego_invalid(s.infer());
    return std::tuple(warned, s.tensor("radar_grid"), s.tensor("camera_bev"));
  };
  const auto [warned, radar, camera] = grids([](FrameSet&) {});
  EXPECT_FALSE(warned);
  for (const double jump : {12., 30., 500.}) {
    const auto older = [&](FrameSet& f, std::size_t from) {
      for (std::size_t i = from; i < f.sweeps.size(); ++i) (*f.sweeps[i].T_world_ego)[3] += jump;
    };
    const auto [older_warned, older_radar, older_camera] = grids([&](FrameSet& f) { older(f, 1); });
    EXPECT_TRUE(older_warned) << jump;
    EXPECT_EQ(older_camera, camera) << jump;  // on this side of the jump
    for (std::size_t i = 0; i < radar.size(); ++i) ASSERT_NEAR(older_radar[i], radar[i], 1e-4) << jump;  // by the twist

    const auto [own_warned, own_radar, own_camera] = grids([&](FrameSet& f) { (*f.ego.T_world_ego)[3] += jump; });
    EXPECT_TRUE(own_warned) << jump;
    for (std::size_t i = 0; i < radar.size(); ++i) ASSERT_NEAR(own_radar[i], radar[i], 1e-4) << jump;

    const auto [image_warned, image_radar, image_camera] = grids([&](FrameSet& f) {
      f.ego.T_world_ego.reset();
      (*f.camera_T_world_ego[0])[3] -= jump;
      older(f, 0);
    });
    EXPECT_TRUE(image_warned) << jump;
  }
  const auto [near_warned, near_radar, near_camera] = grids([&](FrameSet& f) {
    for (RadarSweep& sweep : f.sweeps) (*sweep.T_world_ego)[3] -= 2.7;  // 2.9 m in 20 ms; a jump is more than 3 m
  });
  EXPECT_FALSE(near_warned);
  EXPECT_NE(near_radar, radar);
}

// A recording in a loop: the pose at which the localisation stood still in the first pass is good in the second.
TEST(Detector, a_frozen_pose_is_forgotten_where_the_time_starts_again) {
  Stand s;
  const std::int64_t start = s.m.frames.timestamp_ns;
  const auto infer = [&](int tenths) {
    Moment m = moment(s.rig, static_cast<unsigned>(tenths + 1));
    m.frames.timestamp_ns = start + tenths * 100'000'000LL;
    for (RadarSweep& sweep : m.frames.sweeps) sweep.timestamp_ns = m.frames.timestamp_ns;
    m.frames.ego = {identity4(), Vec3{10, 0, 0}};
    return ego_invalid(s.detector.infer(m.frames));
  };
  EXPECT_FALSE(infer(100));
  EXPECT_FALSE(infer(101));
  for (int i = 102; i < 110; ++i) infer(i);
  EXPECT_TRUE(infer(110));
  EXPECT_FALSE(infer(0));
}

// The vehicle stood while no pose came; the distance is not that of its speed now over all that time.
TEST(Detector, a_pose_that_returns_where_the_vehicle_stood_is_not_frozen) {
  Stand s;
  for (int tenths = 0; tenths <= 21; ++tenths) {
    Moment m = moment(s.rig, static_cast<unsigned>(tenths + 1));
    m.frames.timestamp_ns += tenths * 100'000'000LL;
    for (RadarSweep& sweep : m.frames.sweeps) sweep.timestamp_ns = m.frames.timestamp_ns;
    if (tenths == 0 || tenths >= 20) m.frames.ego.T_world_ego = identity4();
    m.frames.ego.twist = Vec3{tenths < 20 ? 0. : 2., 0, 0};
    EXPECT_FALSE(ego_invalid(s.detector.infer(m.frames))) << tenths;
  }
}

// Of a localisation that repeats its pose to the bit while the twist has this speed, forwards and back in turn.
std::optional<int> tenths_until_frozen(double speed, int tenths) {
  Stand s;
  for (int i = 0; i < tenths; ++i) {
    Moment m = moment(s.rig, static_cast<unsigned>(i + 1), 5);
    m.frames.timestamp_ns += i * 100'000'000LL;
    for (RadarSweep& sweep : m.frames.sweeps) sweep.timestamp_ns = m.frames.timestamp_ns;
    m.frames.ego = {identity4(), Vec3{i % 2 ? speed : -speed, 0, 0}};
    if (ego_invalid(s.detector.infer(m.frames))) return i;
  }
  return {};
}

TEST(Detector, the_noise_of_the_twist_of_a_vehicle_that_stands_freezes_no_pose) {
  EXPECT_EQ(tenths_until_frozen(0.4, 300), std::nullopt);  // 12 m in all, and the vehicle nowhere
  EXPECT_EQ(tenths_until_frozen(0.8, 300), 38);            // 3.04 m
}

// It delivered one of the right size, if too late for its frame: from then on another size is a fault of the camera.
TEST(Detector, an_image_that_is_stale_shows_the_size_of_its_camera_too) {
  Stand s;
  s.m.frames.camera_timestamps_ns = {0, s.m.frames.timestamp_ns};
  EXPECT_EQ(s.infer().health.cameras[0], SensorState::stale);
  s.m.frames.camera_timestamps_ns.clear();
  s.m.frames.cameras[0].width = 78;
  EXPECT_EQ(s.infer().health.cameras[0], SensorState::invalid);
}

TEST(Detector, callers_mistakes_have_their_codes) {
  Stand s;
  const auto after = [&](auto&& change) {
    Moment m = moment(s.rig);
    change(m.frames);
    return code_of([&] { s.detector.infer(m.frames); });
  };
  EXPECT_EQ(after([](FrameSet& f) { f.cameras.pop_back(); }), Code::frame_count);
  EXPECT_EQ(after([](FrameSet& f) { f.cameras.emplace_back(); }), Code::frame_count);
  EXPECT_EQ(after([](FrameSet& f) { f.camera_timestamps_ns = {1}; }), Code::frame_count);
  EXPECT_EQ(after([](FrameSet& f) { f.cameras[0].width = 79; }), Code::frame_bad_shape);
  EXPECT_EQ(after([](FrameSet& f) { f.cameras[1].height = 41; }), Code::frame_bad_shape);
  EXPECT_EQ(after([](FrameSet& f) { f.sweeps[0].radar = 2; }), Code::frame_unknown_sensor);
  EXPECT_EQ(after([](FrameSet& f) { f.sweeps[0].radar = -1; }), Code::frame_unknown_sensor);
  EXPECT_EQ(after([](FrameSet& f) { f.sweeps[0].count = -1; }), Code::frame_bad_shape);
  EXPECT_EQ(after([](FrameSet& f) { f.sweeps[0].points = nullptr; }), Code::frame_bad_shape);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  Mat4 skewed = identity4(), broken = identity4();
  skewed[0] = 2;
  broken[3] = nan;
  EXPECT_EQ(after([&](FrameSet& f) { f.ego.T_world_ego = skewed; }), Code::rig_not_rigid);
  EXPECT_EQ(after([&](FrameSet& f) { f.ego.T_world_ego = broken; }), Code::rig_bad_value);
  EXPECT_EQ(after([&](FrameSet& f) { f.sweeps[1].T_world_ego = skewed; }), Code::rig_not_rigid);
  EXPECT_EQ(after([&](FrameSet& f) { f.sweeps[1].T_world_ego = broken; }), Code::rig_bad_value);
  for (std::size_t i = 0; i < 3; ++i)
    EXPECT_EQ(after([&](FrameSet& f) {
                (f.ego.twist = Vec3{1, 0, 0})->at(i) = i == 1 ? nan : std::numeric_limits<double>::infinity();
              }),
              Code::frame_bad_dtype);
  for (const double yaw_rate : {6.3, -6.3, 30.})  // 30 deg/s, given as rad/s
    EXPECT_EQ(after([&](FrameSet& f) { f.ego.twist = Vec3{10, 0, yaw_rate}; }), Code::frame_bad_dtype) << yaw_rate;
  EXPECT_EQ(after([&](FrameSet& f) { f.ego.twist = Vec3{10, 0, 6.28}; }), Code{});
  EXPECT_GT(s.infer().detections.size(), 0u);  // the detector still works
}

TEST(Detector, a_stride_of_0_that_repeats_the_first_row_or_pixel_is_refused) {
  Stand s;
  const auto after = [&](auto&& change) {
    change(s.m.frames.cameras[0] = {s.m.pixels[0].data(), 80, 40, 240});
    return code_of([&] { s.infer(); });
  };
  const auto nv12 = [&](ImageView& v) { v = {v.data, 80, 40, 80, 1, 0, v.data + 80 * 40, 80}; };
  EXPECT_EQ(after([](ImageView&) {}), Code{});
  EXPECT_EQ(after([](ImageView& v) { v.row_stride = 0; }), Code::frame_bad_shape);
  EXPECT_EQ(after([](ImageView& v) { v.pixel_stride = 0; }), Code::frame_bad_shape);
  EXPECT_EQ(after([](ImageView& v) { v.channel_stride = 0; }), Code{});  // grey
  EXPECT_EQ(after(nv12), Code{});
  EXPECT_EQ(after([&](ImageView& v) { nv12(v), v.pixel_stride = 0; }), Code{});  // not used
  EXPECT_EQ(after([&](ImageView& v) { nv12(v), v.row_stride = 0; }), Code::frame_bad_shape);
  EXPECT_EQ(after([&](ImageView& v) { nv12(v), v.chroma_stride = 0; }), Code::frame_bad_shape);
  EXPECT_EQ(after([&](ImageView& v) { nv12(v), v.yuv = YuvMatrix(77); }), Code::frame_bad_dtype);
}

TEST(Detector, rig_must_fit_and_a_refused_one_changes_nothing) {
  Stand s;
  const std::vector<Detection> before = s.infer().detections;
  SensorRig three = s.rig, skewed = s.rig;
  three.cameras.push_back(s.rig.cameras[0]);
  three.cameras[2].name = "third";
  skewed.cameras[0].T_ego_camera[0] = 0.5;
  EXPECT_EQ(code_of([&] { s.detector.set_rig(three); }), Code::rig_mismatch);
  EXPECT_EQ(code_of([&] { s.detector.set_rig(skewed); }), Code::rig_not_rigid);
  EXPECT_EQ(code_of([&] { Detector(small_spec(), three, camera_engine(), bev_engine()); }), Code::rig_mismatch);
  const Result& r = s.infer();
  ASSERT_EQ(r.detections.size(), before.size());
  EXPECT_EQ(std::memcmp(r.detections.data(), before.data(), before.size() * sizeof(Detection)), 0);
}

// The model has two cameras; the rig has the first, or none.
TEST(Detector, rig_with_fewer_cameras_gives_what_absent_cameras_give) {
  for (std::size_t cameras : {1u, 0u}) {
    Stand both, fewer;
    for (std::size_t i = cameras; i < 2; ++i) both.m.frames.cameras[i].data = nullptr;
    const std::vector<Detection> expected = both.infer().detections;
    fewer.infer();  // with both cameras: nothing of this frame remains
    fewer.rig.cameras.resize(cameras);
    fewer.m.frames.cameras.resize(cameras);
    fewer.detector.set_rig(fewer.rig);
    const Result& r = fewer.infer();
    EXPECT_EQ(r.health.cameras, std::vector<SensorState>(cameras, SensorState::ok));
    EXPECT_EQ(r.health.mode, cameras ? Mode::full : Mode::radar_only);
    ASSERT_EQ(r.detections.size(), expected.size());
    EXPECT_EQ(std::memcmp(r.detections.data(), expected.data(), expected.size() * sizeof(Detection)), 0);
    for (const char* name : {"images", "depth", "context", "camera_bev"})
      EXPECT_EQ(fewer.tensor(name), both.tensor(name)) << name;
  }
}

TEST(Detector, set_rig_moves_what_the_cameras_see) {
  Stand s;
  const auto before = (s.infer(), s.tensor("camera_bev"));
  SensorRig swapped = s.rig;
  std::swap(swapped.cameras[0].T_ego_camera, swapped.cameras[1].T_ego_camera);
  s.detector.set_rig(swapped);
  const auto after = (s.infer(), s.tensor("camera_bev"));
  EXPECT_NE(before, after);
  Stand fresh;
  fresh.detector = Detector(small_spec(), swapped, fresh.camera, fresh.bev, Stand::options(1));
  EXPECT_EQ((fresh.infer(), fresh.tensor("camera_bev")), after);
}

TEST(Detector, tensors_of_the_engines_must_be_the_specs) {
  const auto with = [](std::shared_ptr<FakeEngine> camera, std::shared_ptr<FakeEngine> bev) {
    return code_of([&] { Detector(small_spec(), small_rig(), camera, bev); });
  };
  using T = FakeEngine::Tensors;
  const auto camera = [](T in, T out) { return std::make_shared<FakeEngine>(in, out, run_camera); };
  const TensorInfo images{"images", {2, 3, 16, 32}}, depth{"depth", {2, 4, 2, 4}}, context{"context", {2, 3, 2, 4}};
  EXPECT_EQ(with(camera({images}, {depth, context}), bev_engine()), Code{});
  EXPECT_EQ(with(camera({images}, {context, depth}), bev_engine()), Code{});  // by name, not by order
  EXPECT_EQ(with(camera({images}, {depth}), bev_engine()), Code::bundle_tensor_mismatch);
  EXPECT_EQ(with(camera({{"image", images.shape}}, {depth, context}), bev_engine()), Code::bundle_tensor_mismatch);
  EXPECT_EQ(with(camera({{"images", {1, 3, 16, 32}}}, {depth, context}), bev_engine()), Code::bundle_tensor_mismatch);
  EXPECT_EQ(with(camera({{"images", {-1, 3, 16, 32}}}, {depth, context}), bev_engine()), Code::bundle_tensor_mismatch);
  EXPECT_EQ(with(camera({images}, {{"depth", {2, 5, 2, 4}}, context}), bev_engine()), Code::bundle_tensor_mismatch);
  EXPECT_EQ(with(camera({images, {"more", {1}}}, {depth, context}), bev_engine()), Code::bundle_tensor_mismatch);
  EXPECT_EQ(with(bev_engine(), camera_engine()), Code::bundle_tensor_mismatch);
  EXPECT_EQ(with(nullptr, bev_engine()), Code::engine_unavailable);
}

TEST(Detector, moving_one_to_itself_changes_nothing) {
  Stand s;
  Detector& same = s.detector;
  s.detector = std::move(same);
  EXPECT_GT(s.infer().detections.size(), 0u);
  Stand other;
  s.detector = std::move(other.detector);
  EXPECT_GT(s.infer().detections.size(), 0u);
  other.detector = std::move(s.detector);  // one that was moved from may be assigned to
  EXPECT_GT(other.infer().detections.size(), 0u);
}

TEST(Detector, engines_that_another_detector_was_made_with_are_refused) {
  Stand s;
  {
    Detector later(small_spec(), s.rig, camera_engine(), s.bev, Stand::options(1));
    EXPECT_EQ(code_of([&] { s.infer(); }), Code::engine_bind);
    EXPECT_GT(later.infer(s.m.frames).detections.size(), 0u);
  }
  EXPECT_EQ(code_of([&] { s.infer(); }), Code::engine_bind);
}

TEST(Detector, an_enum_that_is_no_value_of_its_type_is_refused) {
  Stand s;
  SensorRig lens = s.rig, velocity = s.rig;
  lens.cameras[0].distortion = Distortion(99);
  velocity.radars[0].velocity = RadialVelocity(-1);
  EXPECT_EQ(code_of([&] { s.detector.set_rig(lens); }), Code::rig_bad_value);
  EXPECT_EQ(code_of([&] { s.detector.set_rig(velocity); }), Code::rig_bad_value);
  ModelSpec spacing = small_spec(), statistic = small_spec();
  spacing.depth.spacing = DepthSpacing(2);
  statistic.radar.features[0].statistic = RadarStatistic(99);
  EXPECT_EQ(code_of([&] { spacing.check(); }), Code::spec_bad_value);
  EXPECT_EQ(code_of([&] { statistic.check(); }), Code::spec_bad_value);
}

TEST(Detector, a_wrong_number_of_threads_is_refused) {
  for (int threads : {-1, 1025, 1 << 30})
    EXPECT_EQ(code_of([&] { Stand stand(threads); }), Code::device_unavailable) << threads;
  for (int threads : {-1, 1025, 1 << 30})  // before any other check
    EXPECT_EQ(code_of([&] { Detector::load("no such.imkd", small_rig(), Stand::options(threads)); }),
              Code::device_unavailable)
        << threads;
}

TEST(Detector, a_failing_engine_leaves_no_boxes_behind) {
  Stand s;
  const Result& r = s.infer();
  EXPECT_GT(r.detections.size(), 0u);
  for (FakeEngine* engine : {s.camera.get(), s.bev.get()}) {
    engine->fails = true;
    EXPECT_EQ(code_of([&] { s.infer(); }), Code::engine_run);
    EXPECT_TRUE(r.detections.empty());
    engine->fails = false;
    EXPECT_GT(s.infer().detections.size(), 0u);
  }
}

// What it throws is the caller's, as it is; nothing of the frame stays.
TEST(Detector, any_exception_of_an_engine_passes_and_the_next_frame_is_as_without_it) {
  static void (*fault)() = nullptr;
  fault = nullptr;
  const auto broken = [](void (*body)(FakeEngine&), std::shared_ptr<FakeEngine> like) {
    return std::make_shared<FakeEngine>(like->inputs(), like->outputs(), body);
  };
  const auto camera = broken([](FakeEngine& e) { fault ? fault() : run_camera(e); }, camera_engine());
  Stand undisturbed;
  Detector detector(small_spec(), undisturbed.rig, camera, bev_engine(), Stand::options(1));
  const Moment m = moment(undisturbed.rig, 2);
  detector.infer(m.frames);
  fault = [] { throw std::bad_alloc(); };
  EXPECT_THROW(detector.infer(m.frames), std::bad_alloc);
  fault = [] { throw std::runtime_error("the driver is gone"); };
  EXPECT_THROW(detector.infer(m.frames), std::runtime_error);
  fault = [] { throw 42; };
  EXPECT_THROW(detector.infer(m.frames), int);
  fault = nullptr;
  const std::vector<Detection> found = detector.infer(undisturbed.m.frames).detections;
  const std::vector<Detection>& expected = undisturbed.infer().detections;
  ASSERT_EQ(found.size(), expected.size());
  ASSERT_FALSE(found.empty());
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_EQ(std::memcmp(&found[i], &expected[i], sizeof(Detection)), 0);
}

// Offsets beyond 2 GiB: rows of an image, some way apart in memory that is mostly never touched.
TEST(Detector, rows_that_lie_far_apart_are_read_from_where_they_are) {
  Stand dense, far;
  constexpr std::ptrdiff_t kStride = std::ptrdiff_t{1} << 27;
  const int height = dense.rig.cameras[0].height;
  const std::size_t bytes = static_cast<std::size_t>(kStride) * static_cast<std::size_t>(height);
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) GTEST_SKIP() << "NO 5 GiB OF ADDRESSES: far rows are not tested here";
  auto* pixels = static_cast<std::uint8_t*>(memory);
  for (int row = 0; row < height; ++row) std::memcpy(pixels + row * kStride, dense.m.pixels[0].data() + row * 240, 240);
  far.m.frames.cameras[0].data = pixels;
  far.m.frames.cameras[0].row_stride = kStride;
  dense.infer();
  far.infer();
  EXPECT_EQ(far.tensor("images"), dense.tensor("images"));
  far.detector.reset();
  dense.m.frames.cameras[0] = {dense.m.pixels[0].data() + (height - 1) * 240, 80, height, -240};
  far.m.frames.cameras[0] = {pixels + (height - 1) * kStride, 80, height, -kStride};  // upside down
  dense.detector.reset();
  dense.infer();
  far.infer();
  EXPECT_EQ(far.tensor("images"), dense.tensor("images"));
  munmap(memory, bytes);
}

TEST(Detector, non_finite_network_outputs_are_dropped_and_counted) {
  Stand s;
  s.bev = std::make_shared<FakeEngine>(bev_engine()->inputs(), bev_engine()->outputs(), [](FakeEngine& e) {
    run_bev(e);
    for (std::size_t i = 0; i < e.size("box"); ++i) e.data("box")[i] = std::nanf("");
  });
  s.detector = Detector(small_spec(), s.rig, s.camera, s.bev, Stand::options(2));
  const Result& r = s.infer();
  EXPECT_TRUE(r.detections.empty());
  EXPECT_GT(r.health.boxes_invalid, 0);
  const auto warns = [](const Result& result) {
    const auto& warnings = result.health.warnings;
    return !warnings.empty() && warnings.back().code == WarningCode::boxes_invalid;
  };
  EXPECT_TRUE(warns(r));
  EXPECT_EQ(code_name(WarningCode::boxes_invalid), "W0152");
  s.detector = Detector(small_spec(), s.rig, s.camera, bev_engine(), Stand::options(2));
  EXPECT_FALSE(warns(s.infer()));
}

TEST(Detector, score_threshold_overrides_the_specs) {
  Stand s;
  const std::size_t all = s.infer().detections.size();
  DetectorOptions options = Stand::options(1);
  options.score_threshold = 0.9;
  s.detector = Detector(small_spec(), s.rig, s.camera, s.bev, options);
  EXPECT_LT(s.infer().detections.size(), all);
  for (const Detection& d : s.infer().detections) EXPECT_GE(d.score, 0.9f);
  options.score_threshold = 1.5;
  EXPECT_EQ(code_of([&] { Detector(small_spec(), s.rig, s.camera, s.bev, options); }), Code::spec_bad_value);
}

DetectorOptions debug() {
  DetectorOptions options;
  options.threads = 1;
  options.debug = true;
  return options;
}

TEST(Detector, gates_are_bound_and_given_only_with_debug) {
  for (bool with_gates : {false, true}) {
    auto bev = bev_engine_with_maps();
    const SensorRig rig = small_rig();
    const Moment m = moment(rig);
    Detector detector(history_spec(), rig, camera_engine(), bev, with_gates ? debug() : Stand::options(1));
    const Result& r = detector.infer(m.frames);
    EXPECT_EQ(bev->bound.count("i_cam") + bev->bound.count("i_rad"), with_gates ? 2u : 0u);
    ASSERT_EQ(r.debug.size(), with_gates ? 2u : 0u);
    for (const MapView& map : r.debug) {
      EXPECT_EQ(map.rows * map.columns, 256);
      EXPECT_EQ(map.data[128], 0.5f);
    }
  }
  EXPECT_EQ(code_of([] { Detector(small_spec(), small_rig(), camera_engine(), bev_engine(), debug()); }),
            Code::bundle_tensor_mismatch);
  EXPECT_EQ(code_of([] { Detector(small_spec(), small_rig(), camera_engine(), bev_engine_with_maps()); }),
            Code::bundle_tensor_mismatch);
  EXPECT_EQ(code_of([] { Detector(history_spec(), small_rig(), camera_engine(), bev_engine()); }),
            Code::bundle_tensor_mismatch);
}

TEST(Detector, segmentation_is_a_probability_and_not_given_without) {
  Stand s;
  EXPECT_EQ(s.infer().segmentation.data, nullptr);
  s.detector = Detector(history_spec(), s.rig, s.camera, bev_engine_with_maps(), Stand::options(1));
  const Result& r = s.infer();  // without past maps the fake's logits are -1
  EXPECT_EQ(r.segmentation.rows * r.segmentation.columns, 256);
  for (int i = 0; i < 256; ++i) EXPECT_NEAR(r.segmentation.data[i], 0.26894142, 1e-6);
}

TEST(Detector, a_failing_engine_leaves_no_map_behind_and_the_past_in_order) {
  auto bev = bev_engine_with_maps();
  const SensorRig rig = small_rig();
  Moment m = moment(rig);
  m.frames.ego.T_world_ego = identity4();
  Detector detector(history_spec(), rig, camera_engine(), bev, debug());
  const Result& r = detector.infer(m.frames);
  const std::vector<float> fused(bev->data("fused"), bev->data("fused") + bev->size("fused"));
  const auto next = [&] {
    m.frames.timestamp_ns += 500'000'000;
    for (RadarSweep& sweep : m.frames.sweeps) sweep.timestamp_ns += 500'000'000;
    (*m.frames.ego.T_world_ego)[3] += 1;  // one cell
    return detector.infer(m.frames).health.past_frames;
  };
  bev->fails = true;
  EXPECT_EQ(code_of(next), Code::engine_run);
  EXPECT_EQ(r.segmentation.data, nullptr);
  EXPECT_TRUE(r.debug.empty());
  bev->fails = false;
  EXPECT_EQ(next(), 1);  // the frame between stored no map, but its motion counts: two cells in total
  const float *history = bev->data("history"), *second = history + 3 * 256;
  EXPECT_TRUE(all_zero({history, second}, 0, 3 * 256));
  for (int row = 0; row < 3 * 16; ++row)
    for (int column = 0; column < 16; ++column)
      EXPECT_EQ(second[row * 16 + column], column < 14 ? fused[row * 16 + column + 2] : 0.f);
}

TEST(Detector, a_fused_map_that_is_not_finite_is_not_kept) {
  const auto bev = bev_engine_with_maps(run_bev_with_a_nan);
  nan_countdown = 2;  // the second frame
  const SensorRig rig = small_rig();
  Detector detector(history_spec(), rig, camera_engine(), bev, debug());
  std::vector<int> invalid, past;
  for (int i = 0; i < 6; ++i) {
    Moment m = moment(rig, 1 + static_cast<unsigned>(i));
    m.frames.ego.T_world_ego = identity4();
    m.frames.timestamp_ns += i * 500'000'000LL;
    for (RadarSweep& sweep : m.frames.sweeps) sweep.timestamp_ns = m.frames.timestamp_ns;
    const Result& r = detector.infer(m.frames);
    invalid.push_back(r.health.maps_invalid);
    past.push_back(r.health.past_frames);
    EXPECT_GT(r.detections.size(), 0u);
    for (std::size_t k = 0; k < bev->size("history"); ++k) ASSERT_TRUE(std::isfinite(bev->data("history")[k])) << i;
  }
  EXPECT_EQ(invalid, (std::vector<int>{0, 1, 0, 0, 0, 0}));
  EXPECT_EQ(past, (std::vector<int>{0, 1, 1, 1, 2, 2}));  // two slots; the map of the second frame is absent
}

TEST(Detector, memory_of_the_tensors_lives_as_long_as_an_engine_that_holds_it) {
  auto camera = camera_engine();
  {
    Detector(small_spec(), small_rig(), camera, bev_engine());
  }
  camera->data("images")[0] = 1;  // checked by the address sanitizer
  EXPECT_EQ(camera->data("images")[0], 1);
}

}  // namespace
