#include "imkd/geometry.hpp"

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

Vec3 rotate(const Mat4& T_a_b, const Vec3& v) {
  return {T_a_b[0] * v[0] + T_a_b[1] * v[1] + T_a_b[2] * v[2], T_a_b[4] * v[0] + T_a_b[5] * v[1] + T_a_b[6] * v[2],
          T_a_b[8] * v[0] + T_a_b[9] * v[1] + T_a_b[10] * v[2]};
}

Vec3 transform(const Mat4& T_a_b, const Vec3& p_b) {
  Vec3 p_a = rotate(T_a_b, p_b);
  for (int i = 0; i < 3; ++i) p_a[i] += T_a_b[i * 4 + 3];
  return p_a;
}

}  // namespace imkd
