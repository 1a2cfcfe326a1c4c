// Every CUDA op once under ThreadSanitizer, for which each CUDA thread is a thread, ordered only by barriers and
// atomics; and two kernels with a race that it must detect. Usage: races OP
#include <cstdio>
#include <cstring>
#include <map>
#include <vector>

#include "../fakes.hpp"
#include "imkd/cuda.hpp"
#include "ops/kernel.hpp"
#include "ops/past_map.hpp"
#include "ops/scan.hpp"

using namespace imkd;

namespace {

// ---- with a race ----
__global__ void without_barrier(float* out) {  // reads its neighbour's shared value before the barrier
  __shared__ float values[64];
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  out[threadIdx.x] = values[(threadIdx.x + 1) % 64];
  __syncthreads();
}

__global__ void without_atomic(int* count) { *count += 1; }  // blocks add to one number

// ---- without a race ----
__global__ void scan_twice(int* out) {  // as for more values than a block has threads
  int total = 0;
  const int first = cuda::block_scan(1, total);
  out[threadIdx.x] = first + cuda::block_scan(2, total);
}

ModelSpec small() {
  ModelSpec spec = fakes::history_spec();
  spec.radar.max_points = 96;
  spec.head.max_candidates = 40;
  spec.grid = {-4, 4, -4, 4, -5, 3, 1};  // 64 cells
  return spec;
}

template <class T>
std::vector<T> some(std::size_t count, T low, T high) {
  std::vector<T> values(count);
  unsigned seed = 7;
  for (T& value : values)
    value = low + static_cast<T>((high - low) *
                                 static_cast<float>((seed = seed * 1664525u + 1013904223u) >> 8 & 0xffff) / 65535.f);
  return values;
}

const SensorRig rig = fakes::small_rig();
const ModelSpec spec = small();

void images() {
  const fakes::Moment moment = fakes::moment(rig);
  std::vector<ImageCrop> crops;
  for (const CameraCalibration& c : rig.cameras) crops.push_back(image_crop(spec.image, c.width, c.height));
  std::vector<unsigned char> table(cuda::resize_table_bytes(spec.image, 2));
  std::vector<float> out(2 * 3 * 16 * 32);
  cuda::resize_table(moment.frames.cameras.data(), crops.data(), 2, spec.image, table.data(), nullptr);
  cuda::preprocess_images(moment.frames.cameras.data(), 2, spec.image, table.data(), out.data(), cuda::Type::float32,
                          nullptr);
  std::vector<std::int8_t> steps(out.size());
  cuda::quantize_images(moment.frames.cameras.data(), 2, spec.image, table.data(), 0.02f, steps.data(), nullptr);
}

void lift() {
  std::vector<ImageCrop> crops;
  for (const CameraCalibration& c : rig.cameras) crops.push_back(image_crop(spec.image, c.width, c.height));
  const std::size_t points = cuda::lift_points(spec);
  std::vector<std::int32_t> rows(65), point(points), pixel(points);
  constexpr auto first = cuda::Layout::channels_first;
  constexpr auto float32 = cuda::Type::float32;
  std::vector<unsigned char> workspace(cuda::lift_table_workspace(spec) + 256),
      scratch(cuda::lift_workspace(spec, first, float32));
  const auto depth = some<float>(points, 0, 1), context = some<float>(2 * 3 * 8, -1, 1);
  std::vector<float> out(4 * 64);
  const cuda::LiftTable table{rows.data(), point.data(), pixel.data()};
  cuda::lift_table(spec, rig, crops.data(), table, workspace.data(), nullptr);
  cuda::lift(spec, table, depth.data(), context.data(), first, float32, out.data(), float32, scratch.data(), nullptr);
  const fakes::Moment moment = fakes::moment(rig);
  cuda::clear_absent(moment.frames.cameras.data(), 2, scratch.data(), 24, cuda::Type::float32, nullptr);
}

void radar() {
  const fakes::Moment moment = fakes::moment(rig, 1, 60);  // more than max_points together
  std::vector<RadarInput> sweeps(2);
  Health health;
  const EgoMotion motion(rig, moment.frames, spec.radar.max_age);
  const int count = resolve_sweeps(spec, rig, moment.frames, motion, sweeps.data(), health);
  std::vector<unsigned char> workspace(cuda::radar_workspace(spec) + 256);
  std::vector<float> out(2 * 64);
  RadarStats stats;
  cuda::voxelize_radar(spec, {}, sweeps.data(), count, 120, out.data(), cuda::Type::float32, &stats, workspace.data(),
                       nullptr);
}

void warp() {
  const auto maps = some<float>(2 * 3 * 64, -1, 1);
  std::vector<float> out(2 * 3 * 64);
  Mat4 T = identity4();
  T[3] = 0.4;
  cuda::warp_bev(spec.grid, {}, maps.data(), 3, T, out.data(), cuda::Type::float32, nullptr);
  std::vector<cuda::PastMap> past(2, {Warp(spec.grid), false, 1});
  for (auto& slot : past) slot.warp.set(spec.grid, {}, T);
  cuda::warp_past(spec.grid, past.data(), 2, maps.data(), 3, out.data(), cuda::Type::float32, nullptr);
  const std::vector<float> bad(3 * 256, std::nanf(""));
  std::vector<float> stored(2 * bad.size());
  const std::int32_t index = 1;
  std::int32_t invalid = -1;
  cuda::store_map(bad.data(), bad.size(), cuda::Type::float32, &index, stored.data(), &invalid, nullptr);
}

void decode() {
  const auto heatmap = some<float>(2 * 64, -3, 3), box = some<float>(20 * 64, -1, 1);
  std::vector<unsigned char> workspace(cuda::decode_workspace(spec) + 256);
  std::vector<Detection> boxes(static_cast<std::size_t>(spec.head.max_detections));
  cuda::DecodeCounts counts;
  cuda::decode(spec, {}, heatmap.data(), box.data(), cuda::Type::float32, boxes.data(), &counts, workspace.data(),
               nullptr);
}

}  // namespace

int main(int count, char** arguments) {
  static float numbers[64];
  static int total, sums[cuda::kScanThreads];
  const std::map<std::string, void (*)()> cases{
      {"images", images},
      {"lift", lift},
      {"radar", radar},
      {"warp", warp},
      {"decode", decode},
      {"scan", [] { cuda::run("scan_twice", scan_twice, dim3(1), dim3(cuda::kScanThreads), nullptr, sums); }},
      {"without_barrier", [] { cuda::run("without_barrier", without_barrier, dim3(1), dim3(64), nullptr, numbers); }},
      {"without_atomic", [] { cuda::run("without_atomic", without_atomic, dim3(4), dim3(1), nullptr, &total); }}};
  const auto entry = cases.find(count == 2 ? arguments[1] : "");
  if (entry == cases.end()) return 2;
  entry->second();
  std::printf("%s: ran to its end\n", arguments[1]);
  return 0;
}
