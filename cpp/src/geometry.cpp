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

Mat4 relative(const Mat4& T_world_a, const Mat4& T_world_b) {
  Mat4 near_a = T_world_a, near_b = T_world_b;
  for (int i : {3, 7, 11}) {
    near_b[i] -= near_a[i];
    near_a[i] = 0;
  }
  return compose(inverse_rigid(near_a), near_b);
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

namespace {

constexpr double kMaxRotation = 3;  // rad

double length(const Vec3& v) { return std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]); }
Vec3 scaled(const Vec3& v, double factor) { return {v[0] * factor, v[1] * factor, v[2] * factor}; }
Vec3 cross(const Vec3& a, const Vec3& b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

// The axis of a rotation R by nearly half a turn, where R - R^T, an axis times twice the sine, has no digits left: a
// column of (R + R^T) / 2 = cos + (1 - cos) axis axis^T, along axis * sin(angle).
Vec3 axis_near_half_turn(const Mat4& T, double cosine, const Vec3& along) {
  const int k = T[0] >= T[5] && T[0] >= T[10] ? 0 : T[5] >= T[10] ? 1 : 2;  // of the axis's largest component
  Vec3 axis{};
  for (int i = 0; i < 3; ++i) axis[i] = (T[i * 4 + k] + T[k * 4 + i]) / 2 - (i == k ? cosine : 0);
  const double dot = axis[0] * along[0] + axis[1] * along[1] + axis[2] * along[2];
  return scaled(axis, (dot < 0 ? -1 : 1) / length(axis));
}

}  // namespace

Vec3 rotation_vector(const Mat4& T) {
  const Vec3 v{(T[9] - T[6]) / 2, (T[2] - T[8]) / 2, (T[4] - T[1]) / 2};  // axis * sin(angle)
  const double sine = length(v), cosine = (T[0] + T[5] + T[10] - 1) / 2, angle = std::atan2(sine, cosine);
  if (angle > kMaxRotation) return scaled(axis_near_half_turn(T, cosine, v), angle);
  return scaled(v, sine > 0 ? angle / sine : 0);
}

// Rodrigues' formula.
Mat4 rigid(const Vec3& rotation, const Vec3& t) {
  const double angle = length(rotation);
  const auto [x, y, z] = scaled(rotation, angle > 0 ? 1 / angle : 0);
  const double s = std::sin(angle), c = std::cos(angle), k = 1 - c;
  // clang-format off
  return {c + k * x * x, k * x * y - s * z, k * x * z + s * y, t[0],
          k * x * y + s * z, c + k * y * y, k * y * z - s * x, t[1],
          k * x * z - s * y, k * y * z + s * x, c + k * z * z, t[2],
          0, 0, 0, 1};
  // clang-format on
}

std::optional<Mat4> interpolate(const Mat4& T_world_a, const Mat4& T_world_b, double fraction) {
  const Mat4 T = relative(T_world_a, T_world_b);
  const Vec3 rotation = rotation_vector(T), t{T[3], T[7], T[11]};
  const double angle = length(rotation);
  if (angle > kMaxRotation) return std::nullopt;

  // Along the axis the screw moves evenly, across it along an arc; w is the speed across it at a.
  const Vec3 axis = scaled(rotation, angle > 0 ? 1 / angle : 0);
  const Vec3 along = scaled(axis, axis[0] * t[0] + axis[1] * t[1] + axis[2] * t[2]);
  const Vec3 across{t[0] - along[0], t[1] - along[1], t[2] - along[2]}, turned = cross(axis, across);
  const Arc whole(angle), part(fraction * angle);
  const double det = whole.s * whole.s + whole.c * whole.c;
  Vec3 w{}, out{};
  for (int i = 0; i < 3; ++i) w[i] = (whole.s * across[i] - whole.c * turned[i]) / det;
  const Vec3 side = cross(axis, w);
  for (int i = 0; i < 3; ++i) out[i] = fraction * (along[i] + part.s * w[i] + part.c * side[i]);
  return compose(T_world_a, rigid(scaled(rotation, fraction), out));
}

}  // namespace imkd
