// Small fixed-size geometry. Transforms are row-major 4x4 doubles named T_to_from.
#pragma once
#include <array>

namespace imkd {

using Vec3 = std::array<double, 3>;
using Mat3 = std::array<double, 9>;   // row-major
using Mat4 = std::array<double, 16>;  // row-major

constexpr Mat4 identity4() { return {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}; }
Mat4 compose(const Mat4& T_a_b, const Mat4& T_b_c);        // T_a_c
Mat4 inverse_rigid(const Mat4& T_a_b);                     // T_b_a
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

}  // namespace imkd
