// Small fixed-size geometry. Transforms are row-major 4x4 doubles named T_to_from.
#pragma once
#include <array>
#include <optional>

namespace imkd {

using Vec3 = std::array<double, 3>;
using Mat3 = std::array<double, 9>;   // row-major
using Mat4 = std::array<double, 16>;  // row-major

constexpr Mat4 identity4() { return {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}; }
Mat4 compose(const Mat4& T_a_b, const Mat4& T_b_c);  // T_a_c
Mat4 inverse_rigid(const Mat4& T_a_b);               // T_b_a
// T_a_b of two poses in one world. The translations are subtracted first: a far origin, as of UTM, costs no digits.
Mat4 relative(const Mat4& T_world_a, const Mat4& T_world_b);
constexpr Vec3 rotate(const Mat4& T_a_b, const Vec3& v) {  // rotation part only: v_a
  return {T_a_b[0] * v[0] + T_a_b[1] * v[1] + T_a_b[2] * v[2], T_a_b[4] * v[0] + T_a_b[5] * v[1] + T_a_b[6] * v[2],
          T_a_b[8] * v[0] + T_a_b[9] * v[1] + T_a_b[10] * v[2]};
}
constexpr Vec3 transform(const Mat4& T_a_b, const Vec3& p_b) {  // p_a
  const Vec3 p = rotate(T_a_b, p_b);
  return {p[0] + T_a_b[3], p[1] + T_a_b[7], p[2] + T_a_b[11]};
}
// z = a x + b y + c of a plane (a, b, c).
constexpr double height_of(const Vec3& plane, double x, double y) { return plane[0] * x + plane[1] * y + plane[2]; }

// Planar motion at a constant twist (vx, vy m/s and yaw rate rad/s in the moving frame), along an arc.
Mat4 after(const Vec3& twist, double seconds);                // T_now_later; negative seconds: T_now_earlier
Vec3 twist_between(const Mat4& T_now_later, double seconds);  // its inverse, for the planar part of a motion

// Axis times angle (rad, at most pi) of a rotation, and its inverse with a translation.
Vec3 rotation_vector(const Mat4& T);
Mat4 rigid(const Vec3& rotation_vector, const Vec3& translation);

// The pose at a fraction of the way from a to b, along the screw that joins them: exact for a constant twist, in a
// plane or not. None where the rotation between them exceeds 3 rad: its axis is then ill-conditioned.
std::optional<Mat4> interpolate(const Mat4& T_world_a, const Mat4& T_world_b, double fraction);

}  // namespace imkd
