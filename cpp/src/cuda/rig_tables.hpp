// RigTables: what the kernels look up that depends on the rig. Made as a whole, so that a rig that fails leaves the
// former one.
#pragma once
#include <memory>
#include <vector>

#include "cuda_runtime/resources.hpp"
#include "imkd/cuda.hpp"

namespace imkd::cuda {

class RigTables {
 public:
  RigTables() = default;  // of no rig
  // Waits until the tables are complete. work: lift_table_workspace(spec) bytes, also below.
  RigTables(const ModelSpec& spec, const SensorRig& rig, const std::vector<ImageCrop>& crops, void* work,
            cudaStream_t stream);
  // Enqueues new rows for the cameras whose exposure has moved, at the same addresses.
  void update_lift(const ModelSpec& spec, const std::vector<Mat4>& T_ref_ego, void* work, cudaStream_t stream);
  const unsigned char* resize() const { return resize_.get(); }
  LiftTable lift() const { return {rows_.get(), points_.get(), pixels_.get()}; }

 private:
  SensorRig rig_;
  std::shared_ptr<ImageView> sizes_;  // of the rig's images, for the resize table
  std::shared_ptr<ImageCrop> crops_;  // the same
  std::shared_ptr<unsigned char> resize_;
  std::shared_ptr<std::int32_t> rows_, points_, pixels_;  // of the lift
  std::vector<Mat4> T_ref_ego_;                           // by camera, of the lift's table
  std::unique_ptr<bool[]> moved_;                         // by camera, of the present frame
  bool lift_valid_ = false;                               // false while it is rebuilt, and where that failed
};

}  // namespace imkd::cuda
