// The CUDA ops on NumPy arrays, their kernels run on the CPU, for comparison with the CPU ops. Tensors are float32 or
// float16, by the dtype of the first; the environment variable GPUHOST_ORDER sets the order of blocks and threads.
#include <cstring>
#include <memory>
#include <optional>

#include "../../../cpp/bindings/common.hpp"
#include "cuda_runtime/check.hpp"
#include "imkd/cuda.hpp"
#include "traffic.hpp"

namespace py = pybind11;
using namespace imkd;
using namespace imkd::python;

namespace {

// As of cudaMalloc: aligned and not cleared. Of the exact size, so that a sanitizer detects an overrun.
struct Memory {
  explicit Memory(std::size_t bytes) : data(new unsigned char[bytes + 256]) {
    std::size_t space = bytes + 256;
    void* at = data.get();
    std::align(256, bytes, at, space);
    aligned = static_cast<unsigned char*>(at);
    std::memset(data.get(), 0xA5, bytes + 256);
    traffic::watch(aligned, bytes, traffic::kBetween);
  }
  std::unique_ptr<unsigned char[]> data;
  unsigned char* aligned;
};

cuda::Type type_of(const py::array& a) { return a.dtype().itemsize() == 2 ? cuda::Type::float16 : cuda::Type::float32; }
py::array make(cuda::Type type, const std::vector<py::ssize_t>& shape) {
  py::array out(py::dtype(type == cuda::Type::float16 ? "e" : "f"), shape);
  std::memset(out.mutable_data(), 0xA5, out.nbytes());
  traffic::watch(out.mutable_data(), out.nbytes(), traffic::kOutput);
  return out;
}

void reads(const py::array& a) { traffic::watch(a.data(), a.nbytes(), traffic::kInput); }

std::vector<ImageView> read_views(const py::sequence& images) {
  std::vector<ImageView> views;
  for (py::handle image : images) {
    views.push_back(image_view(image, "images"));
    if (py::isinstance<py::array>(image)) reads(image.cast<py::array>());
  }
  return views;
}

py::array py_preprocess_images(const py::sequence& images, const std::vector<ImageCrop>& crops, const ImageSpec& spec,
                               bool half) {
  const std::vector<ImageView> views = read_views(images);
  const int count = static_cast<int>(views.size());
  const cuda::Type type = half ? cuda::Type::float16 : cuda::Type::float32;
  py::array out = make(type, {count, 3, spec.height, spec.width});
  Memory table(cuda::resize_table_bytes(spec, count));
  cuda::resize_table(views.data(), crops.data(), count, spec, table.aligned, nullptr);
  cuda::preprocess_images(views.data(), count, spec, table.aligned, out.mutable_data(), type, nullptr);
  return out;
}

py::array py_quantize_images(const py::sequence& images, const std::vector<ImageCrop>& crops, const ImageSpec& spec,
                             float scale) {
  const std::vector<ImageView> views = read_views(images);
  const int count = static_cast<int>(views.size());
  py::array_t<std::int8_t> out({py::ssize_t(count), py::ssize_t(3), py::ssize_t(spec.height), py::ssize_t(spec.width)});
  std::memset(out.mutable_data(), 0xA5, static_cast<std::size_t>(out.nbytes()));
  traffic::watch(out.mutable_data(), static_cast<std::size_t>(out.nbytes()), traffic::kOutput);
  Memory table(cuda::resize_table_bytes(spec, count));
  cuda::resize_table(views.data(), crops.data(), count, spec, table.aligned, nullptr);
  cuda::quantize_images(views.data(), count, spec, table.aligned, scale, out.mutable_data(), nullptr);
  return out;
}

using Indices = py::array_t<std::int32_t>;

py::tuple py_lift_table(const ModelSpec& spec, const SensorRig& rig, const std::vector<ImageCrop>& crops) {
  Indices rows(py::ssize_t(spec.grid.width()) * spec.grid.height() + 1), points(cuda::lift_points(spec)),
      pixels(cuda::lift_points(spec));
  const cuda::LiftTable table{rows.mutable_data(), points.mutable_data(), pixels.mutable_data()};
  Memory workspace(cuda::lift_table_workspace(spec));
  cuda::lift_table(spec, rig, crops.data(), table, workspace.aligned, nullptr);
  return py::make_tuple(rows, points, pixels);
}

// context: (N,C,h,w), or (N,h,w,C) where channels_last; half: type of the output, by default that of depth.
py::array py_lift(const ModelSpec& spec, const py::tuple& table, const py::array& depth, const py::array& context,
                  bool channels_last, std::optional<bool> half) {
  Indices rows = table[0].cast<Indices>(), points = table[1].cast<Indices>(), pixels = table[2].cast<Indices>();
  const cuda::Type type = type_of(depth);
  for (const py::array& input : {py::array(rows), py::array(points), py::array(pixels), depth, context}) reads(input);
  const cuda::Type out_type = !half ? type : *half ? cuda::Type::float16 : cuda::Type::float32;
  const cuda::Layout layout = channels_last ? cuda::Layout::channels_last : cuda::Layout::channels_first;
  py::array out = make(out_type, {spec.context_channels + 1, spec.grid.height(), spec.grid.width()});
  Memory workspace(cuda::lift_workspace(spec, layout, type));
  cuda::lift(spec, {rows.mutable_data(), points.mutable_data(), pixels.mutable_data()}, depth.data(), context.data(),
             layout, type, out.mutable_data(), out_type, workspace.aligned, nullptr);
  return out;
}

py::tuple py_voxelize_radar(const ModelSpec& spec, const SensorRig& rig, py::handle sweeps, py::handle timestamp_ns,
                            py::handle ego, bool half, int spare_points) {
  FrameSet frames;
  frames.timestamp_ns = timestamp(timestamp_ns, "timestamp_ns");
  const Sweeps checked = radar_sweeps(sweeps, rig, frames.timestamp_ns);
  frames.sweeps = checked.views;
  frames.ego = ego_motion(ego);
  for (const FloatArray& points : checked.points) reads(points);
  std::vector<RadarInput> inputs(frames.sweeps.size());
  Health health;
  const int count = resolve_sweeps(spec, rig, frames, inputs.data(), health);
  const cuda::Type type = half ? cuda::Type::float16 : cuda::Type::float32;
  py::array out = make(type, {py::ssize_t(spec.radar.features.size()), spec.radar_height(), spec.radar_width()});
  Memory workspace(cuda::radar_workspace(spec));
  RadarStats stats{-1, -1, -1, -1};
  int points = 0;
  for (int i = 0; i < count; ++i) points += inputs[i].count;
  cuda::voxelize_radar(spec, inputs.data(), count, points + spare_points, out.mutable_data(), type, &stats,
                       workspace.aligned, nullptr);
  return py::make_tuple(out, py::make_tuple(stats.used, stats.invalid, stats.outside, stats.overflow));
}

py::array py_warp_bev(const GridSpec& grid, const py::array& features, py::handle T_then_now) {
  const cuda::Type type = type_of(features);
  reads(features);
  py::array out = make(type, {features.shape(0), features.shape(1), features.shape(2)});
  cuda::warp_bev(grid, features.data(), static_cast<int>(features.shape(0)), rigid_transform(T_then_now, "T_then_now"),
                 out.mutable_data(), type, nullptr);
  return out;
}

py::tuple py_decode(const ModelSpec& spec, const py::array& heatmap, const py::array& box) {
  std::vector<Detection> boxes(spec.head.max_detections);
  cuda::DecodeCounts counts{-1, -1};
  Memory workspace(cuda::decode_workspace(spec));
  reads(heatmap);
  reads(box);
  cuda::decode(spec, heatmap.data(), box.data(), type_of(heatmap), boxes.data(), &counts, workspace.aligned, nullptr);
  py::array_t<float> values({py::ssize_t(counts.boxes), py::ssize_t(9)}), scores(counts.boxes);
  Indices labels(counts.boxes);
  for (int i = 0; i < counts.boxes; ++i) {
    const Detection& d = boxes[i];
    const float row[9] = {d.x, d.y, d.z, d.length, d.width, d.height, d.yaw, d.vx, d.vy};
    std::copy(row, row + 9, values.mutable_data(i, 0));
    scores.mutable_at(i) = d.score;
    labels.mutable_at(i) = d.label;
  }
  return py::make_tuple(values, scores, labels, counts.dropped);
}

#if !defined(IMKD_COUNT)
// Copies an array to the device's memory; returns the address and the owner.
py::tuple device_copy(const py::array& array) {
  void* memory = nullptr;
  cuda::check(cudaMalloc(&memory, static_cast<std::size_t>(array.nbytes())), "cudaMalloc");
  std::memcpy(memory, array.data(), static_cast<std::size_t>(array.nbytes()));
  return py::make_tuple(reinterpret_cast<std::uintptr_t>(memory), py::capsule(memory, [](void* p) { cudaFree(p); }));
}
#endif

}  // namespace

#if defined(IMKD_COUNT)
PYBIND11_MODULE(cuda_counted, m) {
  py::module_::import("imkd_edge._core");  // has the types of these functions' arguments
#else
void bind_detector(py::module_& m);  // cpp/bindings/detector.cpp

PYBIND11_MODULE(cuda_on_host, m) {
  py::module_::import("imkd_edge._core");
  bind_detector(m);  // with device "cuda"
  m.def("device_copy", &device_copy);
#endif
  m.def("preprocess_images", &py_preprocess_images, py::arg("images"), py::arg("crops"), py::arg("image_spec"),
        py::arg("half") = false);
  m.def("quantize_images", &py_quantize_images);
  m.def("lift_table", &py_lift_table);
  m.def("lift", &py_lift, py::arg("spec"), py::arg("table"), py::arg("depth"), py::arg("context"),
        py::arg("channels_last") = false, py::arg("half") = py::none());
  m.def("voxelize_radar", &py_voxelize_radar, py::arg("spec"), py::arg("rig"), py::arg("sweeps"),
        py::arg("timestamp_ns"), py::arg("ego"), py::arg("half") = false, py::arg("spare_points") = 0);
  m.def("warp_bev", &py_warp_bev);
  m.def("decode", &py_decode);
  m.def("start_counting", &traffic::start);
  m.def("counted", &traffic::counted);
}
