#include "contract_check.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "fields.hpp"
#include "imkd/ops.hpp"
#include "number_text.hpp"
#include "ops/radar_point.hpp"
#include "rig_warnings.hpp"

namespace imkd {
namespace {

constexpr std::size_t kSamples = 1024;  // intensities of a frame, at most; evenly spaced where there are more
constexpr int kSignPeriod = 3;          // frames; of each the first has its velocities compared, for it takes a while
constexpr float kSignSpeed = 3;         // m/s, of the slowest vehicle whose frames are compared
constexpr float kSignShare = 0.2f;      // of the speed, between that of the ego motion and that of the radars

// Whether a warning is about the rig, not about a frame.
bool of_rig(WarningCode code) {
  return code != WarningCode::radar_intensity && code != WarningCode::radar_points &&
         code != WarningCode::radar_unusable && code != WarningCode::radar_sign && code != WarningCode::ego_motion &&
         code != WarningCode::ego_invalid && code != WarningCode::traffic && code != WarningCode::boxes_invalid;
}

}  // namespace

bool Hysteresis::update(bool outside, bool far) {
  frames_ = outside == holds_ ? 0 : frames_ + 1;
  if (frames_ >= kFramesToChange || (far && !holds_)) {
    holds_ = !holds_;
    frames_ = 0;
  }
  return holds_;
}

ContractCheck::ContractCheck(const ModelSpec& spec, std::optional<Contract> contract)
    : contract_(std::move(contract)), max_age_(spec.radar.max_age) {
  if (contract_) contract_->check(spec);
  for (std::size_t i = 0; i < entries_.size(); ++i) entries_[i].warning.code = kWarningCodes[i];
  intensities_.reserve(kSamples + 1);
}

ContractCheck::Entry& ContractCheck::entry_of(WarningCode code) {
  return *std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.warning.code == code; });
}

template <class... Values>
void ContractCheck::update(WarningCode code, bool holds, const char* format, Values... values) {
  Entry& entry = entry_of(code);
  if (holds && !entry.holds) entry.warning = make_warning(code, format, values...);
  entry.holds = holds;
}

void ContractCheck::set(WarningCode code, bool holds, const char* text) { update(code, holds, "%s", text); }

void ContractCheck::set_rig(std::vector<Warning> warnings) noexcept {
  for (Entry& entry : entries_) {
    const auto next =
        std::find_if(warnings.begin(), warnings.end(), [&](const Warning& w) { return w.code == entry.warning.code; });
    if (next != warnings.end())
      entry = {true, *next};
    else if (of_rig(entry.warning.code))
      entry.holds = false;
  }
}

void ContractCheck::reset() {
  intensity_.reset();
  points_.reset();
  sign_.reset();
  moving_frames_ = 0;
  for (Entry& entry : entries_) entry.holds = entry.holds && of_rig(entry.warning.code);
}

// The median of the frame's intensities against the contract's usual range.
void ContractCheck::observe_intensity(const FrameSet& frames, const Health& health) {
  std::size_t total = 0;
  for (const RadarSweep& sweep : frames.sweeps) total += static_cast<std::size_t>(sweep.count);
  const std::size_t stride = total / kSamples + 1;
  intensities_.clear();
  std::size_t next = 0;  // of the frame's points, the next to be taken
  std::size_t base = 0;
  for (const RadarSweep& sweep : frames.sweeps) {
    const auto count = static_cast<std::size_t>(sweep.count);
    if (usable(health.radars[static_cast<std::size_t>(sweep.radar)]))
      for (; next < base + count; next += stride)
        if (const float* point = sweep.points + (next - base) * 5; valid_point(point)) intensities_.push_back(point[3]);
    base += count;
    next = std::max(next, base);
  }
  if (intensities_.size() < kFewestPoints) return;

  const auto middle = intensities_.begin() + static_cast<std::ptrdiff_t>(intensities_.size() / 2);
  std::nth_element(intensities_.begin(), middle, intensities_.end());
  const double median = *middle;
  const Range& range = contract_->radars.intensity;
  const double beyond = std::max(range[0] - median, median - range[1]);
  update(WarningCode::radar_intensity, intensity_.update(beyond > kIntensityMargin, beyond > kIntensityFar),
         "the median intensity of a frame's radar points is %s dB, trained with %s to %s dB (%s)",
         number_text(median, 4).c_str(), number_text(range[0], 4).c_str(), number_text(range[1], 4).c_str(),
         enum_name(contract_->radars.unit));
}

void ContractCheck::observe_points(const FrameSet& frames, const Health& health) {
  double points = 0;
  int sweeps = 0;
  for (const RadarSweep& sweep : frames.sweeps) {
    if (!usable(health.radars[static_cast<std::size_t>(sweep.radar)])) continue;
    points += sweep.count;
    ++sweeps;
  }
  if (sweeps == 0) return;
  const double mean = points / sweeps;
  const Range& range = contract_->radars.points;
  const bool beyond = outside(mean, range[0] / kPointsFactor, range[1] * kPointsFactor);
  update(WarningCode::radar_points, points_.update(beyond, false),
         "a sweep has %.0f points in the mean, trained with %.0f to %.0f", mean, range[0], range[1]);
}

// A driver whose velocities are positive when approaching makes the standing world drive at twice the ego speed, and so
// does a radar that is mounted the other way round.
void ContractCheck::observe_sign(const SensorRig& rig, const FrameSet& frames, const Health& health) {
  const float speed = health.ego_speed;
  if (health.ego_speed_estimated || !(std::abs(speed) >= kSignSpeed) || moving_frames_++ % kSignPeriod) return;
  const EgoSpeed seen = estimate_ego_speed(rig, frames.sweeps.data(), static_cast<int>(frames.sweeps.size()),
                                           frames.timestamp_ns, max_age_);
  const bool opposite = std::abs(seen.speed + speed) < kSignShare * std::abs(speed);
  if (!seen.valid || !(opposite || std::abs(seen.speed - speed) < kSignShare * std::abs(speed))) return;
  update(WarningCode::radar_sign, sign_.update(opposite, false),
         "by the radars the vehicle moves at %s m/s, by its ego motion at %s: a velocity is positive when receding; "
         "correct its sign, the radars' mountings or the ego motion",
         number_text(seen.speed, 3).c_str(), number_text(speed, 3).c_str());
}

void ContractCheck::observe(const SensorRig& rig, const FrameSet& frames, Health& health) {
  if (contract_ && contract_->radars.number[1] > 0) {
    observe_intensity(frames, health);
    observe_points(frames, health);
  }
  observe_sign(rig, frames, health);
  const auto radar = std::find(health.radars.begin(), health.radars.end(), SensorState::unusable);
  const bool any = radar != health.radars.end();
  update(WarningCode::radar_unusable, any, "none of the points of radar %s falls into the grid",
         any ? rig.radars[static_cast<std::size_t>(radar - health.radars.begin())].name.c_str() : "");

  health.warnings.clear();
  for (const Entry& entry : entries_) {
    if (!entry.holds) continue;
    health.warnings.push_back(entry.warning);
    if (health.mode == Mode::full && lowers_mode(entry.warning.code)) health.mode = Mode::partial;
  }
}

}  // namespace imkd
