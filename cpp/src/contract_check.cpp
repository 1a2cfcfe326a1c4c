#include "contract_check.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>

#include "fields.hpp"
#include "imkd/ops.hpp"
#include "ops/radar_point.hpp"

namespace imkd {
namespace {

constexpr std::size_t kSamples = 1024;  // intensities of a frame, at most; evenly spaced where there are more
constexpr double kDegrees = 180 / 3.14159265358979323846;

template <class... Values>
Warning make_warning(WarningCode code, const char* format, Values... values) {
  Warning warning{code, {}};
  std::snprintf(warning.text.data(), warning.text.size(), format, values...);
  return warning;
}

// Horizontal angle between the optical axis and the ray of a raw pixel of the principal row, rad; NaN where the lens
// has no ray.
double ray_angle(const CameraCalibration& camera, double u) {
  const double pixel[2] = {u, camera.K[5]};
  double ray[3];
  pixel_rays(camera, pixel, 1, ray);
  return std::atan2(ray[0], ray[2]);
}

using Text = std::function<std::string(std::size_t)>;

// One warning for the sensors that a predicate names, with the first of them; none where it names none.
void warn(std::vector<Warning>& out, WarningCode code, std::size_t count,
          const std::function<bool(std::size_t)>& unlike, const Text& text) {
  std::size_t first = count, more = 0;
  for (std::size_t i = 0; i < count; ++i)
    if (unlike(i)) {
      if (first == count)
        first = i;
      else
        ++more;
    }
  if (first == count) return;
  const std::string others = more ? "; so are " + std::to_string(more) + " more" : "";
  out.push_back(make_warning(code, "%s%s", text(first).c_str(), others.c_str()));
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

template <class Numbers>
std::string range_text(const Numbers& range, const char* unit) {
  const double low = range[0], high = range[1];
  return (low == high ? number(low) : number(low) + " to " + number(high)) + unit;
}

template <class Kind>
std::string kinds_text(const std::vector<Kind>& kinds) {
  std::string text;
  for (Kind kind : kinds) text += (text.empty() ? "" : ", ") + std::string(enum_name(kind));
  return text;
}

bool outside(double value, double low, double high) { return !(value >= low && value <= high); }

// Whether a warning is about the rig, not about a frame.
bool of_rig(WarningCode code) {
  return code != WarningCode::radar_intensity && code != WarningCode::radar_points &&
         code != WarningCode::radar_unusable && code != WarningCode::ego_motion && code != WarningCode::ego_invalid &&
         code != WarningCode::traffic;
}

bool aliased(RadialVelocity kind) { return kind == RadialVelocity::aliased; }

// Whether a statistic is 0 for every return of a radar of this kind; raw velocities are compensated at run time.
bool dead(RadarStatistic statistic, RadialVelocity kind) {
  const bool velocity = statistic == RadarStatistic::velocity_x || statistic == RadarStatistic::velocity_y;
  const bool phase = statistic == RadarStatistic::phase_cos || statistic == RadarStatistic::phase_sin;
  return aliased(kind) ? velocity : phase;
}

bool motion(RadarStatistic statistic) {
  return dead(statistic, RadialVelocity::aliased) || dead(statistic, RadialVelocity::compensated);
}

// Whether the model lacks the motion of such a radar, or never received it in its training.
bool unlike_kind(const ModelSpec& spec, RadialVelocity kind, const std::optional<Contract>& contract) {
  const auto& features = spec.radar.features;
  const auto total = std::count_if(features.begin(), features.end(), [](auto& f) { return motion(f.statistic); });
  const auto zero = std::count_if(features.begin(), features.end(), [&](auto& f) { return dead(f.statistic, kind); });
  if (!contract) return total > 0 && zero == total;
  const auto& known = contract->radars.velocity;
  return total > 0 &&
         std::none_of(known.begin(), known.end(), [&](RadialVelocity k) { return aliased(k) == aliased(kind); });
}

std::string dead_text(const ModelSpec& spec, RadialVelocity kind) {
  std::string text;
  for (const RadarFeature& feature : spec.radar.features)
    if (dead(feature.statistic, kind)) text += (text.empty() ? "" : ", ") + std::string(enum_name(feature.statistic));
  return text.empty() ? "" : "; it leaves these channels at 0: " + text;
}

void compare_radars(const ModelSpec& spec, const SensorRig& rig, const std::optional<Contract>& contract,
                    std::vector<Warning>& out) {
  const auto& radars = rig.radars;
  warn(
      out, WarningCode::radar_velocity, radars.size(),
      [&](std::size_t i) { return unlike_kind(spec, radars[i].velocity, contract); },
      [&](std::size_t i) {
        return "radar " + radars[i].name + " measures " + enum_name(radars[i].velocity) + " velocity" +
               (contract ? ", trained with " + kinds_text(contract->radars.velocity) : "") +
               dead_text(spec, radars[i].velocity);
      });
  if (!contract) return;

  const RadarsContract& known = contract->radars;
  const int count = static_cast<int>(radars.size());
  const std::string numbers =
      "the rig has " + std::to_string(count) + " radars, trained with " + range_text(known.number, "");
  if (count < known.number[0]) out.push_back(make_warning(WarningCode::fewer_radars, "%s", numbers.c_str()));
  if (count > known.number[1]) out.push_back(make_warning(WarningCode::more_radars, "%s", numbers.c_str()));
  if (known.number[1] == 0) return;
  const Vec3 ground = ground_of(spec, rig);
  const auto height = [&](std::size_t i) { return mounting_height(radars[i].T_ego_radar, ground); };
  warn(
      out, WarningCode::radar_mounting, radars.size(),
      [&](std::size_t i) {
        return outside(height(i), known.mounting[0] - kMountingMargin, known.mounting[1] + kMountingMargin);
      },
      [&](std::size_t i) {
        return "radar " + radars[i].name + " is " + number(height(i)) + " m above the ground plane, trained at " +
               range_text(known.mounting, " m");
      });
}

void compare_cameras(const ModelSpec& spec, const SensorRig& rig, const CamerasContract& known,
                     std::vector<Warning>& out) {
  const auto& cameras = rig.cameras;
  const int count = static_cast<int>(cameras.size());
  const std::string numbers =
      "the rig has " + std::to_string(count) + " cameras, trained with " + range_text(known.number, "");
  if (count < known.number[0]) out.push_back(make_warning(WarningCode::fewer_cameras, "%s", numbers.c_str()));
  if (count > known.number[1]) out.push_back(make_warning(WarningCode::more_cameras, "%s", numbers.c_str()));
  if (known.number[1] == 0) return;

  const auto named = [&](std::size_t i) { return "camera " + cameras[i].name; };
  std::vector<double> views;
  for (const CameraCalibration& camera : cameras) views.push_back(horizontal_view(camera));
  warn(
      out, WarningCode::camera_field_of_view, cameras.size(),
      [&](std::size_t i) {
        return outside(views[i], known.field_of_view[0] - kFieldOfViewMargin,
                       known.field_of_view[1] + kFieldOfViewMargin);
      },
      [&](std::size_t i) {
        return named(i) + " has a field of view of " + number(views[i]) + " degrees, trained with " +
               range_text(known.field_of_view, "");
      });

  warn(
      out, WarningCode::camera_resolution, cameras.size(),
      [&](std::size_t i) {
        const auto unlike = [](int value, const CountRange& range) {
          return outside(value, range[0] / kResolutionFactor, range[1] * kResolutionFactor);
        };
        return unlike(cameras[i].width, known.width) || unlike(cameras[i].height, known.height);
      },
      [&](std::size_t i) {
        return named(i) + " has " + std::to_string(cameras[i].width) + "x" + std::to_string(cameras[i].height) +
               " px, trained with a width of " + range_text(known.width, "") + " and a height of " +
               range_text(known.height, "");
      });

  warn(
      out, WarningCode::camera_lens, cameras.size(),
      [&](std::size_t i) {
        return std::find(known.lenses.begin(), known.lenses.end(), cameras[i].distortion) == known.lenses.end() &&
               cameras[i].distortion == Distortion::fisheye;
      },
      [&](std::size_t i) {
        return named(i) + " has a lens \"" + enum_name(cameras[i].distortion) + "\", trained with " +
               kinds_text(known.lenses);
      });

  const Vec3 ground = ground_of(spec, rig);
  const auto height = [&](std::size_t i) { return mounting_height(cameras[i].T_ego_camera, ground); };
  warn(
      out, WarningCode::camera_mounting, cameras.size(),
      [&](std::size_t i) {
        return outside(height(i), known.mounting[0] - kMountingMargin, known.mounting[1] + kMountingMargin);
      },
      [&](std::size_t i) {
        return named(i) + " is " + number(height(i)) + " m above the ground plane, trained at " +
               range_text(known.mounting, " m");
      });
}

void compare_coverage(const std::vector<CameraCoverage>& coverage, std::vector<Warning>& out) {
  warn(
      out, WarningCode::camera_coverage, coverage.size(), [&](std::size_t i) { return !coverage[i].usable(); },
      [&](std::size_t i) {
        const std::string hint = coverage[i].hint.empty() ? "" : "; " + coverage[i].hint;
        return "camera " + coverage[i].name + " is not used: " + number(100 * coverage[i].across) +
               " % of its pixels see across the grid, " + number(100 * kMinCoverage) + " % are needed" + hint;
      });
}

}  // namespace

double horizontal_view(const CameraCalibration& camera) {
  double left = -0.5, right = camera.width - 0.5;
  while (left < right && std::isnan(ray_angle(camera, left))) ++left;
  while (left < right && std::isnan(ray_angle(camera, right))) --right;
  return left < right ? kDegrees * (ray_angle(camera, right) - ray_angle(camera, left)) : 0;
}

double mounting_height(const Mat4& T, const Vec3& ground) {
  return (T[11] - height_of(ground, T[3], T[7])) / std::sqrt(1 + ground[0] * ground[0] + ground[1] * ground[1]);
}

std::vector<Warning> rig_warnings(const ModelSpec& spec, const SensorRig& rig, const std::optional<Contract>& contract,
                                  const std::vector<CameraCoverage>& coverage) {
  std::vector<Warning> out;
  compare_radars(spec, rig, contract, out);
  if (contract) {
    compare_cameras(spec, rig, contract->cameras, out);
    if (contract->ground_plane && !rig.ground_plane && spec.legacy_plane == Vec3{})
      out.push_back(make_warning(WarningCode::ground_plane, "%s",
                                 "the rig names no ground plane, those of the training did: add \"ground_plane\"; "
                                 "imkd_edge.checks.ground.propose_ground finds one in LiDAR or radar returns"));
  }
  compare_coverage(coverage, out);
  return out;
}

bool Hysteresis::update(bool outside, bool far) {
  frames_ = outside == holds_ ? 0 : frames_ + 1;
  if (frames_ >= kFramesToChange || (far && !holds_)) {
    holds_ = !holds_;
    frames_ = 0;
  }
  return holds_;
}

ContractCheck::ContractCheck(const ModelSpec& spec, std::optional<Contract> contract) : contract_(std::move(contract)) {
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
         "the median intensity of a frame's radar points is %.1f dB, trained with %.1f to %.1f dB (%s)", median,
         range[0], range[1], enum_name(contract_->radars.unit));
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

void ContractCheck::observe(const SensorRig& rig, const FrameSet& frames, Health& health) {
  if (contract_ && contract_->radars.number[1] > 0) {
    observe_intensity(frames, health);
    observe_points(frames, health);
  }
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
