#include "rig_tables.hpp"

#include <algorithm>

namespace imkd::cuda {

RigTables::RigTables(const ModelSpec& spec, const SensorRig& rig, const std::vector<ImageCrop>& crops, void* work,
                     cudaStream_t stream)
    : rig_(rig) {
  sizes_ = pinned_memory<ImageView>(crops.size());
  crops_ = pinned_memory<ImageCrop>(crops.size());
  for (std::size_t i = 0; i < crops.size(); ++i) {
    sizes_.get()[i] = {nullptr, 1, 1};  // of a camera that the rig lacks
    if (i < rig.cameras.size()) sizes_.get()[i] = {nullptr, rig.cameras[i].width, rig.cameras[i].height};
    crops_.get()[i] = crops[i];
  }
  resize_ = device_memory<unsigned char>(resize_table_bytes(spec.image, spec.cameras));
  rows_ = device_memory<std::int32_t>(std::size_t(spec.grid.width()) * spec.grid.height() + 1);
  points_ = device_memory<std::int32_t>(lift_points(spec));
  pixels_ = device_memory<std::int32_t>(lift_points(spec));
  T_ref_ego_.assign(rig.cameras.size(), identity4());
  moved_ = std::make_unique<bool[]>(crops.size());
  resize_table(sizes_.get(), crops_.get(), spec.cameras, spec.image, resize_.get(), stream);
  lift_table(spec, rig, crops.data(), lift(), work, stream);
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize", "set_rig");
  lift_valid_ = true;
}

void RigTables::update_lift(const ModelSpec& spec, const std::vector<Mat4>& T_ref_ego, void* work,
                            cudaStream_t stream) {
  bool any = false;
  for (std::size_t i = 0; i < T_ref_ego_.size(); ++i) {
    moved_[i] = !lift_valid_ || T_ref_ego[i] != T_ref_ego_[i];
    any = any || moved_[i];
  }
  if (!any) return;
  lift_valid_ = false;
  update_lift_table(spec, rig_, crops_.get(), T_ref_ego.data(), moved_.get(), lift(), work, stream);
  std::copy_n(T_ref_ego.begin(), T_ref_ego_.size(), T_ref_ego_.begin());
  lift_valid_ = true;
}

}  // namespace imkd::cuda
