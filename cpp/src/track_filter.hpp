// The Kalman filters of one tracked object.
#pragma once
#include <array>

namespace imkd {

// Position and velocity at constant velocity, disturbed by white acceleration. Noise and prior are equal along x and y,
// so both axes share one 2 x 2 covariance and the axes stay independent. Bar-Shalom, Li and Kirubarajan, Estimation
// with Applications to Tracking and Navigation, 2001, section 6.2.2.
struct MotionFilter {
  std::array<double, 2> position{}, velocity{};  // m, m/s
  double pp = 0, pv = 0, vv = 0;                 // covariance along one axis

  // acceleration: m/s, by which the velocity changes within 1 s.
  void predict(double seconds, double acceleration) {
    const double q = acceleration * acceleration, t = seconds;
    for (int i = 0; i < 2; ++i) position[i] += velocity[i] * t;
    pp += t * (2 * pv + t * vv) + q * t * t * t / 3;
    pv += t * vv + q * t * t / 2;
    vv += q * t;
  }

  void observe_position(const std::array<double, 2>& measured, double variance) {
    const double s = pp + variance;
    for (int i = 0; i < 2; ++i) {
      const double innovation = measured[i] - position[i];
      position[i] += pp / s * innovation;
      velocity[i] += pv / s * innovation;
    }
    vv -= pv * pv / s;
    pv *= variance / s;
    pp *= variance / s;
  }

  void observe_velocity(const std::array<double, 2>& measured, double variance) {
    const double s = vv + variance;
    for (int i = 0; i < 2; ++i) {
      const double innovation = measured[i] - velocity[i];
      position[i] += pv / s * innovation;
      velocity[i] += vv / s * innovation;
    }
    pp -= pv * pv / s;
    pv *= variance / s;
    vv *= variance / s;
  }
};

// A number that drifts slowly: height, yaw, length, width.
struct DriftFilter {
  double value = 0, variance = 0;

  void predict(double seconds, double drift) { variance += drift * drift * seconds; }  // drift: within 1 s
  void observe(double innovation, double measured_variance) {
    const double gain = variance / (variance + measured_variance);
    value += gain * innovation;
    variance *= 1 - gain;
  }
};

}  // namespace imkd
