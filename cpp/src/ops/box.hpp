// Decodes one cell of the head into a box. The CPU op and its CUDA twin share it.
#pragma once
#include <cmath>

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

IMKD_HD inline bool suppresses(const Detection& better, const Detection& other, float radius) {
  const float dx = better.x - other.x;
  const float dy = better.y - other.y;
  return better.label == other.label && dx * dx + dy * dy <= radius * radius;
}

}  // namespace imkd
