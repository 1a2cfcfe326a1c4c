// What the tests of the tracker have in common.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "fakes.hpp"
#include "imkd/tracker.hpp"

namespace imkd::track_cases {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

inline Detection car(double x, double y, double vx = kNan, double vy = kNan, double score = 0.9) {
  Detection d{};
  d.x = static_cast<float>(x);
  d.y = static_cast<float>(y);
  d.length = 4.5F;
  d.width = 1.8F;
  d.height = 1.5F;
  d.vx = static_cast<float>(vx);
  d.vy = static_cast<float>(vy);
  d.score = static_cast<float>(score);
  return d;
}

inline Result result_at(double seconds, std::vector<Detection> detections) {
  Result result;
  result.timestamp_ns = 1'700'000'000 * kSecond + std::llround(seconds * 1e9);
  result.detections = std::move(detections);
  result.ego.T_world_ego = identity4();
  return result;
}

inline std::vector<std::int64_t> ids(const std::vector<Track>& tracks) {
  std::vector<std::int64_t> out;
  for (const Track& track : tracks) out.push_back(track.id);
  return out;
}

using Ids = std::vector<std::int64_t>;

inline Mat4 turned(double yaw, double x, double y) { return rigid({0, 0, yaw}, {x, y, 0}); }

}  // namespace imkd::track_cases
