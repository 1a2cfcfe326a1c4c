// The lift's table of a rig, built in memory of its own and rebuilt for the cameras whose exposure pose has moved.
#pragma once
#include <vector>

#include "frustum.hpp"

namespace imkd {

class LiftTableBuilder {
 public:
  // All memory that it will use, and the cameras at the poses of the rig; crops: one per camera.
  LiftTableBuilder(const ModelSpec& spec, const SensorRig& rig, const ImageCrop* crops, ThreadPool& pool);
  // Finds the cells of the cameras whose motion to the exposure is another than before, and sorts all points again.
  // T_ref_ego: by camera, of rounded_exposure. Allocates nothing.
  void update(const Mat4* T_ref_ego, ThreadPool& pool);
  const LiftTable& table() const { return table_; }

 private:
  struct Camera {
    Frustum frustum;
    Mat4 T_ego_camera;         // of the rig
    Mat4 T_ref_ego;            // of the cells
    std::vector<double> x, y;  // of the rays, by feature pixel; NaN where the lens has none
  };
  void find_cells(std::size_t camera, ThreadPool& pool);
  void sort();

  int width_, pixels_, bins_;  // of the features and of the depth
  std::vector<double> depths_;
  std::vector<Camera> cameras_;
  std::vector<std::int32_t> cell_;  // (N,D,h,w) of each frustum point; kOutside beyond the grid
  std::vector<std::int32_t> next_;  // (cells + 1)
  LiftTable table_;
};

}  // namespace imkd
