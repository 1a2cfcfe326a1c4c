// Compares the data of each frame with what a bundle was trained on; the rig at load: rig_warnings.hpp.
#pragma once
#include <array>
#include <iterator>
#include <optional>
#include <vector>

#include "imkd/contract.hpp"
#include "imkd/frames.hpp"
#include "imkd/result.hpp"

namespace imkd {

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
  void observe_sign(const SensorRig& rig, const FrameSet& frames, const Health& health);

  std::optional<Contract> contract_;
  double max_age_;  // s, of a sweep
  std::array<Entry, std::size(kWarningCodes)> entries_{};
  std::vector<float> intensities_;  // scratch memory
  Hysteresis intensity_, points_, sign_;
  int moving_frames_ = 0;
};

}  // namespace imkd
