// Decodes one cell of the head into a box. The CPU op and its CUDA twin share it.
#pragma once
#include <cmath>
#include <limits>

#include "imkd/spec.hpp"
#include "plane.hpp"

namespace imkd {

constexpr float kPi = 3.14159274f;  // the float nearest to pi, which is larger than pi

inline float logit_of(double score) { return float(std::log(score / (1 - score))); }
IMKD_HD inline float score_of(float logit) { return float(1 / (1 + std::exp(-double(logit)))); }

// Whether a cell has the largest value of its 3x3 neighbourhood; of equal values the lowest index is the peak. A NaN
// neighbour is ignored.
template <class T>
IMKD_HD inline bool is_peak(const T* map, int row, int column, int height, int width) {
  const float value = to_float(map[row * width + column]);
  for (int r = row > 0 ? row - 1 : 0; r <= row + 1 && r < height; ++r)
    for (int c = column > 0 ? column - 1 : 0; c <= column + 1 && c < width; ++c) {
      const float other = to_float(map[r * width + c]);
      const bool before = r < row || (r == row && c < column);
      if (before ? other >= value : other > value) return false;
    }
  return true;
}

// Decodes the box of one cell; false where a channel or the result is not finite.
template <class T>
IMKD_HD inline bool read_box(const Plane& grid, const T* box, int cell, Detection& d) {
  float value[kBoxChannels];
  for (int c = 0; c < kBoxChannels; ++c) {
    value[c] = to_float(box[std::size_t(c) * grid.width * grid.height + cell]);
    if (!std::isfinite(value[c])) return false;
  }
  const int row = cell / grid.width;
  const int column = cell % grid.width;
  const double x = grid.x(column + 0.5 + double(value[BoxChannel::offset_x]));
  const double y = grid.y(row + 0.5 + double(value[BoxChannel::offset_y]));
  d.x = float(x);
  d.y = float(y);
  d.z = float(grid.ground(x, y) + value[BoxChannel::above_ground]);
  d.length = float(std::exp(double(value[BoxChannel::log_length])));
  d.width = float(std::exp(double(value[BoxChannel::log_width])));
  d.height = float(std::exp(double(value[BoxChannel::log_height])));
  d.yaw = float(std::atan2(double(value[BoxChannel::sin_yaw]), double(value[BoxChannel::cos_yaw])));
  if (d.yaw >= kPi) d.yaw = -kPi;
  d.vx = value[BoxChannel::velocity_x];
  d.vy = value[BoxChannel::velocity_y];
  return std::isfinite(d.x) && std::isfinite(d.y) && std::isfinite(d.z) && std::isfinite(d.length) &&
         std::isfinite(d.width) && std::isfinite(d.height);
}

// Length, width and height m that a box of a class may have.
struct SizeLimits {
  float min[3], max[3];
};

inline SizeLimits size_limits(const ClassSpec& spec) {
  SizeLimits limits;
  for (int i = 0; i < 3; ++i) {
    limits.min[i] = spec.min_size ? float((*spec.min_size)[i]) : 0;
    limits.max[i] = spec.max_size ? float((*spec.max_size)[i]) : std::numeric_limits<float>::infinity();
  }
  return limits;
}

IMKD_HD inline bool is_within(const Detection& d, const SizeLimits& limits) {
  return d.length >= limits.min[0] && d.length <= limits.max[0] && d.width >= limits.min[1] &&
         d.width <= limits.max[1] && d.height >= limits.min[2] && d.height <= limits.max[2];
}

// Whether a point, dx and dy m from a box's centre, lies in its footprint; the edge belongs to it.
IMKD_HD inline bool covers(const Detection& box, float dx, float dy) {
  // Most points are outside of the circle around the footprint.
  if (4 * (dx * dx + dy * dy) > box.length * box.length + box.width * box.width) return false;
  const float c = float(std::cos(double(box.yaw)));
  const float s = float(std::sin(double(box.yaw)));
  return 2 * std::fabs(c * dx + s * dy) <= box.length && 2 * std::fabs(c * dy - s * dx) <= box.width;
}

// Whether a better-scored box suppresses another one: of its class within the class's radius, of another class where
// both are exclusive and the better one's footprint covers the other's centre.
IMKD_HD inline bool suppresses(const Detection& better, const Detection& other, float radius, bool exclusive) {
  const float dx = other.x - better.x;
  const float dy = other.y - better.y;
  if (better.label == other.label) return dx * dx + dy * dy <= radius * radius;
  return exclusive && covers(better, dx, dy);
}

}  // namespace imkd
