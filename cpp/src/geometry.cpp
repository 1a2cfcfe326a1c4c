#include "imkd/geometry.hpp"

#include <cmath>

namespace imkd {

Mat4 compose(const Mat4& T_a_b, const Mat4& T_b_c) {
  Mat4 T_a_c{};
  for (int r = 0; r < 4; ++r)
    for (int c = 0; c < 4; ++c) {
      double sum = 0;
      for (int k = 0; k < 4; ++k) sum += T_a_b[r * 4 + k] * T_b_c[k * 4 + c];
      T_a_c[r * 4 + c] = sum;
    }
  return T_a_c;
}

Mat4 inverse_rigid(const Mat4& T_a_b) {
  Mat4 T_b_a = identity4();
  for (int r = 0; r < 3; ++r) {
    double shift = 0;
    for (int c = 0; c < 3; ++c) {
      T_b_a[r * 4 + c] = T_a_b[c * 4 + r];
      shift += T_a_b[c * 4 + r] * T_a_b[c * 4 + 3];
    }
    T_b_a[r * 4 + 3] = -shift;
  }
  return T_b_a;
}

namespace {

// Along an arc of angle a = rate * t the displacement is t * [[s, -c], [c, s]] (vx, vy),
// with s = sin a / a and c = (1 - cos a) / a.
struct Arc {
  double s;
  double c;
  explicit Arc(double a)
      : s(std::abs(a) < 1e-6 ? 1 - a * a / 6 : std::sin(a) / a),
        c(std::abs(a) < 1e-6 ? a / 2 : (1 - std::cos(a)) / a) {}
};

}  // namespace

Mat4 after(const Vec3& twist, double seconds) {
  const double angle = twist[2] * seconds;
  const Arc arc(angle);
  Mat4 T = identity4();
  T[0] = T[5] = std::cos(angle);
  T[4] = std::sin(angle);
  T[1] = -T[4];
  T[3] = seconds * (arc.s * twist[0] - arc.c * twist[1]);
  T[7] = seconds * (arc.c * twist[0] + arc.s * twist[1]);
  return T;
}

Vec3 twist_between(const Mat4& T_now_later, double seconds) {
  const double angle = std::atan2(T_now_later[4], T_now_later[0]);
  const Arc arc(angle);
  const double x = T_now_later[3] / seconds;
  const double y = T_now_later[7] / seconds;
  const double det = arc.s * arc.s + arc.c * arc.c;
  return {(arc.s * x + arc.c * y) / det, (arc.s * y - arc.c * x) / det, angle / seconds};
}

}  // namespace imkd
