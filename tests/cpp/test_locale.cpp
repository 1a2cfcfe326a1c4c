// A caller's locale with a decimal comma changes neither what is read nor what is said.
#include <gtest/gtest.h>

#include <clocale>
#include <cstdlib>
#include <filesystem>
#include <locale>

#include "contract_cases.hpp"
#include "imkd/monitor.hpp"

using namespace imkd;
using namespace imkd::fakes;

// Of LeakSanitizer, where the program has it.
extern "C" __attribute__((weak)) void __lsan_disable();
extern "C" __attribute__((weak)) void __lsan_enable();

namespace {

class DecimalComma : public testing::Test {
 protected:
  void SetUp() override {
    folder = testing::TempDir() + "imkd_locale";
    std::filesystem::create_directories(folder);
    setenv("LOCPATH", folder.c_str(), 1);
    const std::string command = "localedef -i de_DE -f UTF-8 " + folder + "/de_DE.UTF-8 2>/dev/null";
    const bool made = std::system(command.c_str()) == 0;
    if (__lsan_disable) __lsan_disable();  // glibc keeps what it reads of LOCPATH
    const bool set = made && std::setlocale(LC_ALL, "de_DE.UTF-8");
    if (set) std::locale::global(std::locale("de_DE.UTF-8"));  // of C++ streams
    if (__lsan_enable) __lsan_enable();
    if (!set) GTEST_SKIP() << "LOCALE ABSENT: no de_DE.UTF-8 (Debian's package locales), a decimal comma is NOT tested";
    char text[8];
    std::snprintf(text, sizeof text, "%.1f", 0.5);
    ASSERT_STREQ(text, "0,5");
  }
  void TearDown() override {
    std::locale::global(std::locale::classic());
    std::setlocale(LC_ALL, "C");
    unsetenv("LOCPATH");
    std::filesystem::remove_all(folder);
  }
  std::string folder;
};

template <class Call>
std::string problem_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.problem();
  }
  return "";
}

void rig_and_spec_are_read_and_written_with_a_point() {
  SensorRig rig = small_rig();
  rig.ground_plane = Vec3{0.125, 0.25, -1.5};
  EXPECT_EQ(SensorRig::from_json(rig.to_json()).ground_plane, rig.ground_plane);
  EXPECT_NE(rig.to_json().find("0.125"), std::string::npos);
  ModelSpec spec = small_spec();
  spec.radar.max_age = 0.625;
  EXPECT_EQ(ModelSpec::from_json(spec.to_json()).radar.max_age, 0.625);
}

void numbers_in_errors_have_a_point() {
  EXPECT_EQ(problem_of([] { Watchdog watchdog(-0.5); }), "is -0.5, out of range");
  SensorRig steep = small_rig();
  steep.ground_plane = Vec3{1.5, 0, 0};
  EXPECT_EQ(problem_of([&] { steep.check(); }), "has slope 1.5, allowed is at most 1");
  Detector detector(small_spec(), small_rig(), camera_engine(), bev_engine());
  Moment m = moment(small_rig());
  m.frames.ego.twist = Vec3{150.25, 0, -0.5};
  EXPECT_EQ(problem_of([&] { detector.infer(m.frames); }).substr(0, 17), "(150.25, 0, -0.5)");
}

void numbers_in_warnings_have_a_point() {
  Setting setting;
  setting.intensity = 100;
  for (CameraCalibration& camera : setting.rig.cameras) camera.T_ego_camera[11] = 4.25;
  Detector detector(setting.spec, setting.rig, camera_engine(), bev_engine(), {}, setting.contract);
  const Moment m = moment_of(setting, 0);
  std::string said;
  for (const Warning& warning : detector.infer(m.frames).health.warnings)
    said += std::string(warning.text.data()) + "\n";
  EXPECT_NE(said.find("is 4.25 m above the ground plane"), std::string::npos) << said;
  EXPECT_NE(said.find("trained with -9.5 to 29.5 dB"), std::string::npos) << said;
}

TEST_F(DecimalComma, changes_neither_what_is_read_nor_what_is_said) {  // one test: making the locale takes seconds
  rig_and_spec_are_read_and_written_with_a_point();
  numbers_in_errors_have_a_point();
  numbers_in_warnings_have_a_point();
}

}  // namespace
