// What is unlike a bundle's contract is a warning, from the frame where it begins to the frame where it ends.
#include <gtest/gtest.h>

#include <cmath>

#include "contract_cases.hpp"

using namespace imkd;
using namespace imkd::fakes;

namespace {

using Codes = std::vector<std::string>;

Detector detector_of(const Setting& s) {
  DetectorOptions options;
  options.threads = 1;
  return Detector(s.spec, s.rig, camera_engine(), bev_engine(), options, s.contract);
}

struct Mismatch {
  const char* name;
  void (*change)(Setting&);
  Codes codes;
  int first_frame;
  Mode mode;
};

void PrintTo(const Mismatch& mismatch, std::ostream* out) { *out << mismatch.name; }

const Mismatch kMismatches[] = {
    {"aliased_velocity",
     [](Setting& s) {
       for (auto& radar : s.rig.radars) radar.velocity = RadialVelocity::aliased, radar.period = 10;
     },
     {"W0101"},
     0,
     Mode::partial},
    {"trained_with_aliased_velocity",
     [](Setting& s) { s.contract.radars.velocity = {RadialVelocity::aliased}; },
     {"W0101"},
     0,
     Mode::partial},
    {"phase_features_without_aliased_radar",
     [](Setting& s) {
       s.spec.radar.features[1].statistic = RadarStatistic::phase_cos;
       s.contract.radars.velocity = {RadialVelocity::aliased};
     },
     {"W0101"},
     0,
     Mode::partial},
    {"intensity_60_db_lower", [](Setting& s) { s.intensity = -60; }, {"W0102"}, 0, Mode::full},
    {"intensity_60_db_higher", [](Setting& s) { s.intensity = 60; }, {"W0102"}, 0, Mode::full},
    {"intensity_26_db_lower", [](Setting& s) { s.intensity = -26; }, {"W0102"}, 2, Mode::full},
    {"intensity_26_db_higher", [](Setting& s) { s.intensity = 26; }, {"W0102"}, 2, Mode::full},
    {"few_points", [](Setting& s) { s.contract.radars.points = {1000, 2000}; }, {"W0103"}, 2, Mode::full},
    {"many_points", [](Setting& s) { s.contract.radars.points = {10, 20}; }, {"W0103"}, 2, Mode::full},
    {"two_of_five_radars", [](Setting& s) { s.contract.radars.number = {5, 5}; }, {"W0104"}, 0, Mode::partial},
    {"one_of_two_radars", [](Setting& s) { s.rig.radars.pop_back(); }, {"W0104"}, 0, Mode::partial},
    {"two_instead_of_one_radar", [](Setting& s) { s.contract.radars.number = {1, 1}; }, {"W0105"}, 0, Mode::full},
    {"high_radar", [](Setting& s) { s.rig.radars[0].T_ego_radar[11] = 1; }, {"W0106"}, 0, Mode::full},
    {"low_radar", [](Setting& s) { s.rig.radars[1].T_ego_radar[11] = -0.5; }, {"W0106"}, 0, Mode::full},
    {"lower_ground", [](Setting& s) { s.rig.ground_plane = Vec3{0, 0, -1}; }, {"W0106", "W0116"}, 0, Mode::full},
    {"no_point_in_the_grid", [](Setting& s) { s.shift = 100; }, {"W0107"}, 0, Mode::camera_only},
    {"two_of_six_cameras", [](Setting& s) { s.contract.cameras.number = {6, 6}; }, {"W0111"}, 0, Mode::partial},
    {"two_instead_of_one_camera", [](Setting& s) { s.contract.cameras.number = {1, 1}; }, {"W0112"}, 0, Mode::full},
    {"wide_camera", [](Setting& s) { s.rig.cameras[0].K[0] = 25; }, {"W0113"}, 0, Mode::full},
    {"narrow_camera", [](Setting& s) { s.rig.cameras[1].K[0] = 80; }, {"W0113"}, 0, Mode::full},
    {"wide_image", [](Setting& s) { s.contract.cameras.width = {30, 39}; }, {"W0114"}, 0, Mode::full},
    {"narrow_image", [](Setting& s) { s.contract.cameras.width = {161, 200}; }, {"W0114"}, 0, Mode::full},
    {"high_image", [](Setting& s) { s.contract.cameras.height = {15, 19}; }, {"W0114"}, 0, Mode::full},
    {"low_image", [](Setting& s) { s.contract.cameras.height = {81, 81}; }, {"W0114"}, 0, Mode::full},
    {"fisheye",
     [](Setting& s) {
       s.rig.cameras[0].distortion = Distortion::fisheye;
       s.rig.cameras[0].coefficients = {0, 0, 0, 0};
       s.rig.cameras[0].K[0] = s.rig.cameras[0].K[4] = 51;  // 90 degrees across 80 px: 40 / (pi / 4)
     },
     {"W0115"},
     0,
     Mode::full},
    {"high_camera", [](Setting& s) { s.rig.cameras[0].T_ego_camera[11] = 1.5; }, {"W0116"}, 0, Mode::full},
    {"low_camera", [](Setting& s) { s.rig.cameras[1].T_ego_camera[11] = 0.5; }, {"W0116"}, 0, Mode::full},
    {"camera_to_the_sky",
     [](Setting& s) { s.rig.cameras[1].T_ego_camera = {1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 1, 0, 0, 0, 1}; },
     {"W0117"},
     0,
     Mode::partial},
    {"no_ground_plane", [](Setting& s) { s.contract.ground_plane = true; }, {"W0121"}, 0, Mode::full},
};

class Mismatches : public testing::TestWithParam<Mismatch> {};

TEST_P(Mismatches, are_warnings_from_the_frame_where_they_begin) {
  Setting setting;
  GetParam().change(setting);
  Detector detector = detector_of(setting);
  for (int i = 0; i < 6; ++i) {
    const Moment m = moment_of(setting, i);
    const Health& health = detector.infer(m.frames).health;
    EXPECT_EQ(codes_of(health), i < GetParam().first_frame ? Codes{} : GetParam().codes) << "frame " << i;
    EXPECT_EQ(health.mode, GetParam().mode);
    for (const Warning& warning : health.warnings) EXPECT_GT(std::string(warning.text.data()).size(), 20u);
  }
}

INSTANTIATE_TEST_SUITE_P(Contract, Mismatches, testing::ValuesIn(kMismatches),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Contract, a_rig_and_data_like_it_give_no_warning) {
  const Setting setting;
  Detector detector = detector_of(setting);
  for (int i = 0; i < 6; ++i) {
    const Moment m = moment_of(setting, i);
    const Health& health = detector.infer(m.frames).health;
    EXPECT_EQ(codes_of(health), Codes{});
    EXPECT_EQ(health.mode, Mode::full);
  }
}

// A standing world seen from a vehicle at `speed` m/s whose driver gives velocities with a sign.
Moment standing_world(const Setting& setting, int index, float speed, float sign) {
  Moment m = moment_of(setting, index);
  for (std::size_t s = 0; s < m.points.size(); ++s) {
    const Mat4& T = setting.rig.radars[static_cast<std::size_t>(m.frames.sweeps[s].radar)].T_ego_radar;
    for (std::size_t i = 0; i < m.points[s].size(); i += 5) {
      float* p = &m.points[s][i];
      const double forward = (T[0] * p[0] + T[1] * p[1] + T[2] * p[2]) / std::hypot(p[0], p[1], p[2]);
      p[4] = sign * -static_cast<float>(forward) * speed;
    }
  }
  m.frames.ego.twist = Vec3{speed, 0, 0};
  return m;
}

Setting measuring(RadialVelocity velocity) {
  Setting setting;
  for (RadarCalibration& radar : setting.rig.radars) radar.velocity = velocity;
  return setting;
}

TEST(Contract, velocities_with_the_opposite_sign_are_a_warning_until_they_are_right) {
  const Setting setting = measuring(RadialVelocity::raw);
  for (float speed : {8.f, -6.f}) {
    Detector detector = detector_of(setting);
    std::string frames;
    for (int i = 0; i < 60; ++i) {
      const Moment m = standing_world(setting, i, speed, i < 30 ? -1 : 1);
      const Health& health = detector.infer(m.frames).health;
      frames += health.warnings.empty() ? '.' : 'w';
      if (health.warnings.empty()) continue;
      EXPECT_EQ(codes_of(health), Codes{"W0108"});
      EXPECT_EQ(health.mode, Mode::partial);
      EXPECT_NE(std::string(health.warnings[0].text.data()).find(speed > 0 ? "at -8 m/s" : "at 6 m/s"),
                std::string::npos);
    }
    EXPECT_EQ(frames, std::string(6, '.') + std::string(30, 'w') + std::string(24, '.'));  // every third is compared
  }
}

TEST(Contract, right_velocities_those_of_a_slow_vehicle_and_compensated_ones_have_no_sign_to_warn_of) {
  const auto warned = [](const Setting& setting, float speed, float sign) {
    Detector detector = detector_of(setting);
    for (int i = 0; i < 30; ++i)
      if (!codes_of(detector.infer(standing_world(setting, i, speed, sign).frames).health).empty()) return true;
    return false;
  };
  EXPECT_TRUE(warned(measuring(RadialVelocity::raw), 8, -1));
  EXPECT_FALSE(warned(measuring(RadialVelocity::raw), 8, 1));
  EXPECT_FALSE(warned(measuring(RadialVelocity::raw), 2.5, -1));
  EXPECT_FALSE(warned(measuring(RadialVelocity::compensated), 8, -1));
}

TEST(Contract, a_warning_about_data_ends_after_three_frames_inside) {
  Setting setting;
  setting.intensity = -60;
  Detector detector = detector_of(setting);
  std::string frames, text;
  for (int i = 0; i < 15; ++i) {
    const Moment m = moment_of(setting, i, i >= 5 && i < 10);
    const Health& health = detector.infer(m.frames).health;
    frames += health.warnings.empty() ? '.' : 'w';
    if (health.warnings.empty()) continue;
    const std::string now = health.warnings[0].text.data();
    if (!text.empty()) {
      EXPECT_EQ(now, text) << "the text is that of the frame where it began";
    }
    text = now;
  }
  EXPECT_EQ(frames, ".....wwwwwww...");
  EXPECT_NE(text.find("-9.5 to 29.5 dB (rcs_dbsm)"), std::string::npos) << text;
}

TEST(Contract, a_single_frame_a_little_outside_is_no_warning) {
  Setting setting;
  setting.intensity = -24;
  Detector detector = detector_of(setting);
  for (int i = 0; i < 12; ++i) {
    const Moment m = moment_of(setting, i, i % 3 != 0);
    EXPECT_TRUE(detector.infer(m.frames).health.warnings.empty()) << "frame " << i;
  }
}

TEST(Contract, set_rig_begins_and_ends_warnings_about_the_rig) {
  const Setting like;
  Setting unlike;
  unlike.rig.cameras[0].T_ego_camera[11] = 2;
  Detector detector = detector_of(like);
  for (int i = 0; i < 6; ++i) {
    const Setting& now = i % 2 ? unlike : like;
    detector.set_rig(now.rig);
    const Moment m = moment_of(now, i);
    EXPECT_EQ(codes_of(detector.infer(m.frames).health), i % 2 ? Codes{"W0116"} : Codes{});
  }
}

TEST(Contract, reset_forgets_warnings_about_data) {
  Setting setting;
  setting.intensity = -60;
  Detector detector = detector_of(setting);
  const Moment far = moment_of(setting, 0), near = moment_of(setting, 1, false);
  EXPECT_EQ(codes_of(detector.infer(far.frames).health), Codes{"W0102"});
  detector.reset();
  EXPECT_EQ(codes_of(detector.infer(near.frames).health), Codes{});
}

TEST(Contract, without_one_a_radar_that_leaves_every_velocity_channel_dead_is_a_warning) {
  Setting setting;
  setting.rig.radars[1].velocity = RadialVelocity::aliased;
  setting.rig.radars[1].period = 10;
  Detector detector(setting.spec, setting.rig, camera_engine(), bev_engine());
  const Moment m = moment_of(setting, 0);
  const Health& health = detector.infer(m.frames).health;
  EXPECT_EQ(codes_of(health), Codes{"W0101"});
  EXPECT_NE(std::string(health.warnings[0].text.data()).find("R_REAR"), std::string::npos);
  EXPECT_EQ(health.mode, Mode::partial);
}

TEST(Contract, a_velocity_that_was_not_trained_is_nan_and_nothing_else_changes) {
  Setting setting;
  Detector trained = detector_of(setting);
  setting.contract.trained.velocity = false;
  Detector untrained = detector_of(setting);
  const Moment m = moment_of(setting, 0);
  const auto expected = trained.infer(m.frames).detections;
  const auto& boxes = untrained.infer(m.frames).detections;
  ASSERT_EQ(boxes.size(), expected.size());
  ASSERT_GT(boxes.size(), 0u);
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    EXPECT_TRUE(std::isnan(boxes[i].vx) && std::isnan(boxes[i].vy));
    EXPECT_TRUE(std::isfinite(expected[i].vx) && std::isfinite(expected[i].vy));
    EXPECT_EQ(boxes[i].x, expected[i].x);
    EXPECT_EQ(boxes[i].yaw, expected[i].yaw);
    EXPECT_EQ(boxes[i].score, expected[i].score);
  }
}

TEST(Contract, of_other_classes_is_refused) {
  Setting setting;
  setting.contract.classes[0].name = "forklift";
  EXPECT_EQ(code_of([&] { detector_of(setting); }), Code::bundle_bad_value);
}

TEST(Contract, its_json_reads_back) {
  const std::string text = small_contract().to_json();
  EXPECT_EQ(Contract::from_json(text).to_json(), text);
}

}  // namespace
