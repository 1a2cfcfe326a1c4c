// Compares a rig at load, and the data of each frame, with what a bundle was trained on.
#pragma once
#include <array>
#include <iterator>
#include <optional>
#include <vector>

#include "imkd/contract.hpp"
#include "imkd/coverage.hpp"
#include "imkd/frames.hpp"
#include "imkd/result.hpp"

namespace imkd {

// Degrees, horizontal, between the left and the right edge of the raw image through its principal row; where the lens
// maps no ray to an edge, up to the last column that has one.
double horizontal_view(const CameraCalibration& camera);

// Height of a sensor above the ground plane, along its normal, m.
double mounting_height(const Mat4& T_ego_sensor, const Vec3& ground);

// What a rig is unlike, by code; each code once, with the first sensor of its kind. Without a contract only what the
// spec alone tells: cameras of no use, and radars whose velocity leaves every velocity channel at 0. Allocates.
std::vector<Warning> rig_warnings(const ModelSpec& spec, const SensorRig& rig, const std::optional<Contract>& contract,
                                  const std::vector<CameraCoverage>& coverage);

// The state of a warning about data: it begins after kFramesToChange consecutive frames outside, or with one far
// outside, and ends after as many inside.
class Hysteresis {
 public:
  bool update(bool outside, bool far);  // whether the warning holds
  void reset() { *this = {}; }

 private:
  bool holds_ = false;
  int frames_ = 0;  // consecutive frames that contradict holds_
};

class ContractCheck {
 public:
  ContractCheck(const ModelSpec& spec, std::optional<Contract> contract);
  const std::optional<Contract>& contract() const { return contract_; }
  bool trained_velocity() const { return !contract_ || contract_->trained.velocity; }
  void set_rig(std::vector<Warning> warnings) noexcept;  // of rig_warnings
  void reset();                                          // the frames to come are of another recording
  // Sets health.warnings, and the mode where a warning lowers it; health has the states of this frame's sensors, and
  // room for every code. Allocates nothing.
  void observe(const SensorRig& rig, const FrameSet& frames, Health& health);
  // A condition that the caller knows, before observe(); the text of the frame where it begins stays.
  void set(WarningCode code, bool holds, const char* text);

 private:
  struct Entry {
    bool holds = false;
    Warning warning;
  };
  Entry& entry_of(WarningCode code);
  template <class... Values>
  void update(WarningCode code, bool holds, const char* format, Values... values);
  void observe_intensity(const FrameSet& frames, const Health& health);
  void observe_points(const FrameSet& frames, const Health& health);

  std::optional<Contract> contract_;
  std::array<Entry, std::size(kWarningCodes)> entries_{};
  std::vector<float> intensities_;  // scratch memory
  Hysteresis intensity_, points_;
};

}  // namespace imkd
