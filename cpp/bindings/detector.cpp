// Detector: checks and views the caller's frames, releases the GIL during infer, copies the result.
#include "imkd/detector.hpp"

#include <mutex>

#include "common.hpp"
#include "device_array.hpp"
#include "fields.hpp"
#include "imkd/thread_pool.hpp"
#include "own_process.hpp"
#include "python_error.hpp"

using namespace imkd;
using namespace imkd::python;

namespace {

struct SharedDetector {
  Detector detector;
  OwnProcess process;
  std::recursive_mutex mutex;  // one call at a time; recursive, as an engine written in Python may call tensors()
};

// Releases the GIL before waiting: the engine of the running call may need it.
std::unique_lock<std::recursive_mutex> lock(SharedDetector& self) {
  self.process.require("Detector");  // the parent may have forked while a call held the mutex
  py::gil_scoped_release release;
  return std::unique_lock<std::recursive_mutex>(self.mutex);
}

struct FrameViews {  // and the owners of their memory
  FrameSet frames;
  CameraValues images;
  std::vector<py::object> device_owners;
  Sweeps sweeps;
};

FrameViews frame_views(const SensorRig& rig, const ImageReader& reader, py::handle images, py::handle radar,
                       py::handle ego, py::handle time, py::handle camera_times, py::handle camera_poses) {
  FrameViews views;
  FrameSet& frames = views.frames;
  frames.timestamp_ns = timestamp(time, "timestamp_ns");
  views.images = by_camera(images, rig, "frame");
  for (const auto& [image, where] : views.images)
    frames.cameras.push_back(any_image(image, where, reader, views.device_owners));
  read_exposures(frames, rig, camera_times, camera_poses, Values::as_given);
  views.sweeps = read_motion(frames, rig, radar, ego, Values::as_given);  // the core checks them
  return views;
}

}  // namespace

py::dict imkd::python::health_dict(const Health& health, const SensorRig& rig) {
  py::dict sensors, out;
  for (std::size_t i = 0; i < rig.cameras.size(); ++i)
    sensors[py::str(rig.cameras[i].name)] = enum_name(health.cameras[i]);
  for (std::size_t i = 0; i < rig.radars.size(); ++i)
    sensors[py::str(rig.radars[i].name)] = enum_name(health.radars[i]);
  out["mode"] = enum_name(health.mode);
  out["sensors"] = sensors;
  out["radar_points"] = health.radar_points;
  out["radar_points_invalid"] = health.radar_points_invalid;
  out["radar_points_outside"] = health.radar_points_outside;
  out["radar_points_overflow"] = health.radar_points_overflow;
  out["boxes_invalid"] = health.boxes_invalid;
  out["ego_motion"] = enum_name(health.ego_motion);
  out["ego_speed_estimated"] = health.ego_speed_estimated;
  out["ego_speed"] = health.ego_speed;
  out["ego_speed_residual"] = health.ego_speed_residual;
  out["past_frames"] = health.past_frames;
  out["maps_invalid"] = health.maps_invalid;
  py::list warnings;
  for (const Warning& warning : health.warnings) warnings.append(warning_tuple(warning));
  out["warnings"] = warnings;
  return out;
}

namespace {

// A copy.
FloatArray map_array(const MapView& map) {
  return FloatArray({py::ssize_t(map.rows), py::ssize_t(map.columns)}, map.data);
}

py::dict result_dict(const Result& result, const SensorRig& rig) {
  const auto count = static_cast<py::ssize_t>(result.detections.size());
  FloatArray boxes({count, py::ssize_t(9)}), scores(count);
  py::array_t<std::int32_t> labels(count);
  for (py::ssize_t i = 0; i < count; ++i) {
    const Detection& d = result.detections[static_cast<std::size_t>(i)];
    const float row[9] = {d.x, d.y, d.z, d.length, d.width, d.height, d.yaw, d.vx, d.vy};
    std::copy(row, row + 9, boxes.mutable_data(i, 0));
    scores.mutable_at(i) = d.score;
    labels.mutable_at(i) = d.label;
  }
  py::dict timings, debug, out;
  for (const MapView& map : result.debug) debug[map.name] = map_array(map);
  for (int stage = 0; stage < kStages; ++stage)
    timings[kStageNames[stage]] = result.timings_us[static_cast<std::size_t>(stage)];
  out["timestamp_ns"] = result.timestamp_ns;
  out["boxes"] = boxes;
  out["scores"] = scores;
  out["labels"] = labels;
  out["health"] = health_dict(result.health, rig);
  out["segmentation"] = result.segmentation.data ? py::object(map_array(result.segmentation)) : py::object(py::none());
  out["debug"] = debug;
  out["timings_us"] = timings;
  out["total_us"] = result.total_us;
  out["replayed"] = result.replayed;
  out["ego"] = py::make_tuple(value_or_none(result.ego.T_world_ego), value_or_none(result.ego.twist));
  return out;
}

py::dict infer(SharedDetector& self, py::handle images, py::handle radar, py::handle ego, py::handle time,
               py::handle camera_times, py::handle camera_poses) {
  const auto locked = lock(self);
  const SensorRig& rig = self.detector.rig();
  const ImageReader reader{self.detector.device() == "cuda", self.detector.stream(),
                           [&](void* producer) { self.detector.wait_for(producer); }};
  const FrameViews views = frame_views(rig, reader, images, radar, ego, time, camera_times, camera_poses);
  const Result* result = nullptr;
  try {
    py::gil_scoped_release release;
    result = &self.detector.infer(views.frames);
  } catch (const PythonError& error) {  // of an engine written in Python
    throw py::error_already_set(error.raised);
  }
  return result_dict(*result, rig);
}

void set_rig(SharedDetector& self, const SensorRig& rig) {
  const auto locked = lock(self);
  py::gil_scoped_release release;
  self.detector.set_rig(rig);
}

void reset(SharedDetector& self) {
  const auto locked = lock(self);
  self.detector.reset();
}

SensorRig rig_of(SharedDetector& self) {
  const auto locked = lock(self);
  return self.detector.rig();
}

py::dict tensors(SharedDetector& self) {  // copies
  const auto locked = lock(self);
  py::dict out;
  for (const Detector::Tensor& view : self.detector.tensors())
    out[view.name] = FloatArray(std::vector<py::ssize_t>(view.shape.begin(), view.shape.end()), view.data);
  return out;
}

py::dict device_tensors(SharedDetector& self) {  // name -> (address, shape, dtype)
  const auto locked = lock(self);
  py::dict out;
  for (const Detector::DeviceTensor& view : self.detector.device_tensors())
    out[view.name] = py::make_tuple(reinterpret_cast<std::uintptr_t>(view.data), py::tuple(py::cast(view.shape)),
                                    name_of(view.type));
  return out;
}

std::unique_ptr<SharedDetector> make(const ModelSpec& spec, const SensorRig& rig, std::shared_ptr<Engine> camera,
                                     std::shared_ptr<Engine> bev, const std::string& device, int threads,
                                     double score_threshold, bool debug, bool stage_times,
                                     const std::optional<Contract>& contract, bool unsigned_bundle) {
  DetectorOptions options;
  options.device = device;
  options.threads = threads;
  options.score_threshold = score_threshold;
  options.debug = debug;
  options.stage_times = stage_times;
  options.unsigned_bundle = unsigned_bundle;
  return std::unique_ptr<SharedDetector>(
      new SharedDetector{Detector(spec, rig, std::move(camera), std::move(bev), options, contract), {}, {}});
}

void call_load(const py::function& load, const std::string& engine) {
  try {
    load(engine);
  } catch (const py::error_already_set& raised) {
    throw_if_error(raised);
    throw;
  }
}

py::tuple py_load_for_device(const std::string& device, const std::string& engine, const py::function& load) {
  try {
    const DeviceChoice choice =
        load_for_device(device, engine, [&](const std::string& name) { call_load(load, name); });
    return py::make_tuple(choice.device, choice.why_not_cuda);
  } catch (const PythonError& error) {
    throw py::error_already_set(error.raised);
  }
}

}  // namespace

void bind_detector(py::module_& m) {
  m.attr("MAX_THREADS") = ThreadPool::kMaxThreads;
  m.def("require_cuda", &require_cuda,
        "The number of this thread's GPU; raises Error device_unavailable, with the reason, where this process cannot "
        "use device \"cuda\".");
  m.def(
      "load_for_device", &py_load_for_device, py::arg("device"), py::arg("engine"), py::arg("load"),
      R"(What "auto" means: loads the engines for a device, on the CPU where "auto" finds something missing for the GPU.

Args:
    device: "cpu", "cuda" or "auto".
    engine: an engine's name, or "auto": "tensorrt" on the GPU, "onnxruntime" on the CPU.
    load: called with an engine's name; loads both networks, raises Error where it cannot.

Returns:
    (device for Detector, why "auto" fell back to the CPU, "" where it did not).

Raises:
    Error: device_unavailable, and what load raises.)");
  py::class_<SharedDetector>(m, "Detector", py::module_local(), "Frames in, boxes out; see imkd_edge.Detector.")
      .def(py::init(&make), py::arg("spec"), py::arg("rig"), py::arg("camera"), py::arg("bev"),
           py::arg("device") = "auto", py::arg("threads") = 0, py::arg("score_threshold") = -1.0,
           py::arg("debug") = false, py::arg("stage_times") = false, py::arg("contract") = py::none(),
           py::arg("unsigned_bundle") = false, py::call_guard<py::gil_scoped_release>())
      .def("infer", &infer, py::arg("frames"), py::arg("radar"), py::arg("ego") = py::none(),
           py::arg("timestamp_ns") = 0, py::arg("camera_timestamps_ns") = py::none(),
           py::arg("camera_T_world_ego") = py::none())
      .def("set_rig", &set_rig, py::arg("rig"))
      .def("reset", &reset)
      .def("tensors", &tensors)
      .def("device_tensors", &device_tensors)
      .def_property_readonly("spec", [](const SharedDetector& self) { return self.detector.spec(); })
      .def_property_readonly("device", [](const SharedDetector& self) { return self.detector.device(); })
      .def_property_readonly("why_not_replayed",
                             [](const SharedDetector& self) { return self.detector.why_not_replayed(); })
      .def_property_readonly(
          "stream",  // a cudaStream_t; 0 on the CPU
          [](const SharedDetector& self) { return reinterpret_cast<std::uintptr_t>(self.detector.stream()); })
      .def_property_readonly("gpu", [](const SharedDetector& self) { return self.detector.gpu(); })
      .def_property_readonly("rig", &rig_of);
  m.def("dlpack", &dlpack_capsule, py::arg("address"), py::arg("shape"), py::arg("dtype"), py::arg("gpu"),
        py::arg("owner"), py::arg("versioned"),
        "The DLPack capsule of a dense tensor in the memory of a GPU, -1 for the host's, that lives as long as owner.");
}
