#include "rig_warnings.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>

#include "fields.hpp"
#include "imkd/ops.hpp"
#include "number_text.hpp"

namespace imkd {
namespace {

constexpr double kDegrees = 180 / 3.14159265358979323846;

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

std::string number(double value) { return number_text(value, 4); }

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

}  // namespace imkd
