// The CUDA ops on NumPy arrays, for comparison with the CPU ops. One source for three modules: cuda_on_host, whose
// kernels run on the CPU; cuda_counted (IMKD_COUNT), which counts the bytes that they move; cuda_on_device
// (IMKD_ON_DEVICE), whose kernels run on the GPU. Tensors are float32 or float16, by the dtype of the first; the
// environment variable GPUHOST_ORDER sets the order of blocks and threads on the CPU.
#include <cstring>
#include <optional>

#include "arrays.hpp"
#include "imkd/cuda.hpp"
#include "launch_times.hpp"
#if defined(IMKD_FAKE_CUDA) || (!defined(IMKD_COUNT) && !defined(IMKD_ON_DEVICE))
#include "fake_cuda.hpp"
#endif

namespace py = pybind11;
using namespace imkd;
using namespace imkd::python;
using arrays::Input;
using arrays::List;
using arrays::Memory;
using arrays::Output;

namespace {

cuda::Type type_of(const py::array& a) { return a.dtype().itemsize() == 2 ? cuda::Type::float16 : cuda::Type::float32; }
Output make(cuda::Type type, const std::vector<py::ssize_t>& shape) {
  return Output(py::array(py::dtype(type == cuda::Type::float16 ? "e" : "f"), shape));
}

template <class Op>
void measure_where_requested([[maybe_unused]] const Op& op) {
#if !defined(IMKD_COUNT)
  if (launch_times::request.repeats > 0) launch_times::measure(op);
#endif
}

// Runs an op, waits for it, and times it where that was requested.
template <class Op>
void run(const Op& op) {
  op(nullptr);
  arrays::wait();
  measure_where_requested(op);
}

arrays::Images read_images(const py::sequence& images) {
  arrays::Images result;
  for (py::handle image : images) result.add(image_view(image, "images"), image);
  return result;
}

py::array py_preprocess_images(const py::sequence& images, const std::vector<ImageCrop>& crops, const ImageSpec& spec,
                               bool half) {
  const arrays::Images copies = read_images(images);
  const int count = static_cast<int>(copies.views.size());
  List<ImageView> views(copies.views);
  List<ImageCrop> device_crops(crops);
  const cuda::Type type = half ? cuda::Type::float16 : cuda::Type::float32;
  Output out = make(type, {count, 3, spec.height, spec.width});
  Memory table(cuda::resize_table_bytes(spec, count));
  cuda::resize_table(views.get(), device_crops.get(), count, spec, table.get(), nullptr);
  run([&](cuda::Stream stream) {
    cuda::preprocess_images(views.get(), count, spec, table.get(), out.get(), type, stream);
  });
  return out.read();
}

py::array py_quantize_images(const py::sequence& images, const std::vector<ImageCrop>& crops, const ImageSpec& spec,
                             float scale) {
  const arrays::Images copies = read_images(images);
  const int count = static_cast<int>(copies.views.size());
  List<ImageView> views(copies.views);
  List<ImageCrop> device_crops(crops);
  Output out(py::array(py::dtype("b"), std::vector<py::ssize_t>{count, 3, spec.height, spec.width}));
  Memory table(cuda::resize_table_bytes(spec, count));
  cuda::resize_table(views.get(), device_crops.get(), count, spec, table.get(), nullptr);
  run([&](cuda::Stream stream) {
    cuda::quantize_images(views.get(), count, spec, table.get(), scale, static_cast<std::int8_t*>(out.get()), stream);
  });
  return out.read();
}

using Indices = py::array_t<std::int32_t>;

template <class Array>
cuda::LiftTable lift_table_of(Array& rows, Array& points, Array& pixels) {
  return {static_cast<std::int32_t*>(rows.get()), static_cast<std::int32_t*>(points.get()),
          static_cast<std::int32_t*>(pixels.get())};
}

py::tuple py_lift_table(const ModelSpec& spec, const SensorRig& rig, const std::vector<ImageCrop>& crops) {
  const auto cells = py::ssize_t(spec.grid.width()) * spec.grid.height();
  const auto frustum = static_cast<py::ssize_t>(cuda::lift_points(spec));
  Output rows(Indices(cells + 1)), points{Indices(frustum)}, pixels{Indices(frustum)};
  Memory workspace(cuda::lift_table_workspace(spec));
  const cuda::LiftTable table = lift_table_of(rows, points, pixels);
  cuda::lift_table(spec, rig, crops.data(), table, workspace.get(), nullptr);
  arrays::wait();
  measure_where_requested([&](cuda::Stream stream) {  // as where the exposures of all cameras have moved
    cuda::update_lift_table(spec, rig, crops.data(), nullptr, nullptr, table, workspace.get(), stream);
  });
  return py::make_tuple(rows.read(), points.read(), pixels.read());
}

// context: (N,C,h,w), or (N,h,w,C) where channels_last; half: type of the output, by default that of depth.
py::array py_lift(const ModelSpec& spec, const py::tuple& table, const py::array& depth, const py::array& context,
                  bool channels_last, std::optional<bool> half) {
  Input rows(table[0].cast<Indices>()), points(table[1].cast<Indices>()), pixels(table[2].cast<Indices>());
  Input device_depth(depth), device_context(context);
  const cuda::Type type = type_of(depth);
  const cuda::Type out_type = !half ? type : *half ? cuda::Type::float16 : cuda::Type::float32;
  const cuda::Layout layout = channels_last ? cuda::Layout::channels_last : cuda::Layout::channels_first;
  Output out = make(out_type, {spec.context_channels + 1, spec.grid.height(), spec.grid.width()});
  Memory workspace(cuda::lift_workspace(spec, layout, type));
  const cuda::LiftTable device_table = lift_table_of(rows, points, pixels);
  run([&](cuda::Stream stream) {
    cuda::lift(spec, device_table, device_depth.get(), device_context.get(), layout, type, out.get(), out_type,
               workspace.get(), stream);
  });
  return out.read();
}

py::tuple py_voxelize_radar(const ModelSpec& spec, const SensorRig& rig, py::handle sweeps, py::handle timestamp_ns,
                            py::handle ego, bool half, int spare_points) {
  FrameSet frames;
  frames.timestamp_ns = timestamp(timestamp_ns, "timestamp_ns");
  const Sweeps owners = read_motion(frames, rig, sweeps, ego);
  std::vector<RadarInput> inputs(frames.sweeps.size());
  Health health;
  const int count =
      resolve_sweeps(spec, rig, frames, EgoMotion(rig, frames, spec.radar.max_age), inputs.data(), health);
  const cuda::Type type = half ? cuda::Type::float16 : cuda::Type::float32;
  Output out = make(type, {py::ssize_t(spec.radar.features.size()), spec.radar_height(), spec.radar_width()});
  Memory workspace(cuda::radar_workspace(spec));
  List<RadarStats> stats({RadarStats{-1, -1, -1, -1}});
  inputs.resize(static_cast<std::size_t>(count));
  int points = 0;
  std::vector<Input> copies;
  for (RadarInput& input : inputs) {
    points += input.count;
    copies.emplace_back(FloatArray({py::ssize_t(input.count), py::ssize_t(5)}, input.points, py::none()));
    input.points = static_cast<const float*>(copies.back().get());
  }
  List<RadarInput> device_inputs(std::move(inputs));
  run([&](cuda::Stream stream) {
    cuda::voxelize_radar(spec, ground_of(spec, rig), device_inputs.get(), count, points + spare_points, out.get(), type,
                         stats.get(), workspace.get(), stream);
  });
  const RadarStats& counts = stats.read()[0];
  return py::make_tuple(out.read(), py::make_tuple(counts.used, counts.invalid, counts.outside, counts.overflow));
}

py::array py_warp_bev(const GridSpec& grid, const py::array& features, py::handle T_then_now, const Vec3& ground) {
  const cuda::Type type = type_of(features);
  Input input(features);
  Output out = make(type, {features.shape(0), features.shape(1), features.shape(2)});
  const Mat4 T = rigid_transform(T_then_now, "T_then_now");
  run([&](cuda::Stream stream) {
    cuda::warp_bev(grid, ground, input.get(), static_cast<int>(features.shape(0)), T, out.get(), type, stream);
  });
  return out.read();
}

py::tuple py_decode(const ModelSpec& spec, const py::array& heatmap, const py::array& box, const Vec3& ground) {
  List<Detection> device_boxes{std::vector<Detection>(spec.head.max_detections)};
  List<cuda::DecodeCounts> device_counts({cuda::DecodeCounts{-1, -1}});
  Memory workspace(cuda::decode_workspace(spec));
  Input device_heatmap(heatmap), device_box(box);
  run([&](cuda::Stream stream) {
    cuda::decode(spec, ground, device_heatmap.get(), device_box.get(), type_of(heatmap), device_boxes.get(),
                 device_counts.get(), workspace.get(), stream);
  });
  const std::vector<Detection>& boxes = device_boxes.read();
  const cuda::DecodeCounts counts = device_counts.read()[0];
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

#if !defined(IMKD_COUNT) && !defined(IMKD_ON_DEVICE)
// Copies an array to the device's memory; returns the address and the owner.
py::tuple device_copy(const py::array& array) {
  void* memory = nullptr;
  cuda::check(cudaMalloc(&memory, static_cast<std::size_t>(array.nbytes())), "cudaMalloc");
  std::memcpy(memory, array.data(), static_cast<std::size_t>(array.nbytes()));
  return py::make_tuple(reinterpret_cast<std::uintptr_t>(memory), py::capsule(memory, [](void* p) { cudaFree(p); }));
}

// As device_copy, but the copy is written by a stream that has not run yet; returns also the stream.
py::tuple late_copy(const py::array& array) {
  void* memory = nullptr;
  cudaStream_t stream = nullptr;
  const auto bytes = static_cast<std::size_t>(array.nbytes());
  cuda::check(cudaMalloc(&memory, bytes), "cudaMalloc");
  std::memset(memory, 0, bytes);
  cuda::check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  const auto* begin = static_cast<const char*>(array.data());
  fake::put(stream, [memory, data = std::vector<char>(begin, begin + bytes)] {
    std::memcpy(memory, data.data(), data.size());
  });
  return py::make_tuple(reinterpret_cast<std::uintptr_t>(memory), py::capsule(memory, [](void* p) { cudaFree(p); }),
                        reinterpret_cast<std::uintptr_t>(stream));
}

// Makes a stream wait for another one's work, as a producer does in __dlpack__.
void make_wait(std::uintptr_t stream, std::uintptr_t producer) {
  const cuda::OwnEvent event = cuda::make_event(cudaEventDisableTiming);
  cuda::check(cudaEventRecord(event.get(), reinterpret_cast<cudaStream_t>(producer)), "cudaEventRecord");
  cuda::check(cudaStreamWaitEvent(reinterpret_cast<cudaStream_t>(stream), event.get(), 0), "cudaStreamWaitEvent");
}

// Enqueues a Python function in a stream, as an engine written in Python enqueues its work.
void enqueue(std::uintptr_t stream, py::function work) {
  const auto held = std::shared_ptr<py::function>(new py::function(std::move(work)), [](py::function* function) {
    py::gil_scoped_acquire gil;
    delete function;
  });
  fake::put(reinterpret_cast<cudaStream_t>(stream), [held] {
    py::gil_scoped_acquire gil;
    (*held)();
  });
}
#endif

}  // namespace

#if defined(IMKD_COUNT)
PYBIND11_MODULE(cuda_counted, m) {
#elif defined(IMKD_ON_DEVICE)
PYBIND11_MODULE(cuda_on_device, m) {
#else
void bind_detector(py::module_& m);  // cpp/bindings/detector.cpp

PYBIND11_MODULE(cuda_on_host, m) {
#endif
  py::module_::import("imkd_edge._core");  // has the types of these functions' arguments
#if !defined(IMKD_COUNT) && !defined(IMKD_ON_DEVICE)
  bind_detector(m);  // with device "cuda"
  m.def("device_copy", &device_copy);
  m.def("late_copy", &late_copy);
  m.def("make_wait", &make_wait);
  m.def("enqueue", &enqueue);
  m.def("calls", [] { return std::exchange(fake::cuda().calls, {}); }, "CUDA calls since the last question.");
  m.def("break_device", [] { fake::cuda().dead = true; }, "As a fault in a kernel: every later call fails.");
#endif
#if defined(IMKD_FAKE_CUDA)
  fake::cuda().guard = true;  // the host cannot access device memory, as on a GPU
#endif
#if !defined(IMKD_COUNT)
  // Times the next ops; 0 repeats: no more. launch_times: us, "cold" with emptied caches, "queued" one after the other.
  m.def("time_launches", [](int repeats, std::size_t flushed) { launch_times::request = {repeats, flushed}; });
  m.def("launch_times", [] { return launch_times::times; });
  m.def("measure_copy", &launch_times::measure_copy, py::arg("bytes"), py::arg("repeats"));
#endif
  m.def("preprocess_images", &py_preprocess_images, py::arg("images"), py::arg("crops"), py::arg("image_spec"),
        py::arg("half") = false);
  m.def("quantize_images", &py_quantize_images);
  m.def("lift_table", &py_lift_table);
  m.def("lift", &py_lift, py::arg("spec"), py::arg("table"), py::arg("depth"), py::arg("context"),
        py::arg("channels_last") = false, py::arg("half") = py::none());
  m.def("voxelize_radar", &py_voxelize_radar, py::arg("spec"), py::arg("rig"), py::arg("sweeps"),
        py::arg("timestamp_ns"), py::arg("ego"), py::arg("half") = false, py::arg("spare_points") = 0);
  m.def("warp_bev", &py_warp_bev, py::arg("grid"), py::arg("features"), py::arg("T_then_now"),
        py::arg("ground_plane") = Vec3{});
  m.def("decode", &py_decode, py::arg("spec"), py::arg("heatmap"), py::arg("box"), py::arg("ground_plane") = Vec3{});
  m.def("start_counting", &traffic::start);
  m.def("counted", &traffic::counted);
}
