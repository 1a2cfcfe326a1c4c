// Detector: the caller's frames checked and viewed, the GIL released while the core works, the result copied out.
#include "imkd/detector.hpp"

#include <mutex>

#include "common.hpp"
#include "device_array.hpp"
#include "fields.hpp"
#include "imkd/thread_pool.hpp"

using namespace imkd;
using namespace imkd::python;

namespace {

struct SharedDetector {
  Detector detector;
  std::recursive_mutex mutex;  // one call at a time; recursive, for an engine written in Python may ask for tensors()
};

// The GIL is given up before waiting: the engine of the call that runs may need it.
std::unique_lock<std::recursive_mutex> lock(SharedDetector& self) {
  py::gil_scoped_release release;
  return std::unique_lock<std::recursive_mutex>(self.mutex);
}

using Slots =
    std::vector<std::pair<py::object, std::string>>;  // by camera: the caller's value or None, and what to call it

// A dict by camera name or a list in the rig's order, brought to the rig's order.
Slots by_camera(py::handle given, const SensorRig& rig, const std::string& what) {
  Slots slots;
  for (const CameraCalibration& camera : rig.cameras)
    slots.emplace_back(py::none(), what + " of camera \"" + camera.name + "\"");
  if (given.is_none()) return slots;
  if (py::isinstance<py::dict>(given)) {
    for (const auto& [name, value] : py::reinterpret_borrow<py::dict>(given)) {
      const int index = py::isinstance<py::str>(name) ? rig.camera_index(name.cast<std::string>()) : -1;
      if (index < 0)
        throw Error(Code::frame_unknown_sensor, "the rig has no camera " + py::repr(name).cast<std::string>(), what,
                    "use a name of the rig");
      slots[static_cast<std::size_t>(index)].first = py::reinterpret_borrow<py::object>(value);
    }
    return slots;
  }
  if (!py::isinstance<py::sequence>(given) || py::isinstance<py::str>(given) || py::isinstance<py::array>(given))
    throw Error(Code::frame_bad_dtype,
                std::string("is a ") + Py_TYPE(given.ptr())->tp_name + ", neither a dict nor a list", what,
                "give {camera name: value}, or a list in the rig's order");
  const auto list = py::reinterpret_borrow<py::sequence>(given);
  if (list.size() != slots.size())
    throw Error(Code::frame_count,
                std::to_string(list.size()) + " entries for " + std::to_string(slots.size()) + " cameras", what,
                "one per camera in the rig's order; None where a camera is absent");
  for (std::size_t i = 0; i < slots.size(); ++i) slots[i].first = list[i];
  return slots;
}

struct Given {  // views, and what keeps their memory alive
  FrameSet frames;
  Slots images;
  std::vector<py::object> on_device;
  Sweeps sweeps;
};

Given given_frames(const SensorRig& rig, bool on_cuda, py::handle images, py::handle radar, py::handle ego,
                   py::handle time, py::handle camera_times) {
  Given given;
  FrameSet& frames = given.frames;
  frames.timestamp_ns = timestamp(time, "timestamp_ns");
  given.images = by_camera(images, rig, "frame");
  for (const auto& [image, where] : given.images)
    frames.cameras.push_back(any_image(image, where, on_cuda, given.on_device));
  for (const auto& [camera_time, where] : by_camera(camera_times, rig, "timestamp"))
    frames.camera_timestamps_ns.push_back(camera_time.is_none() ? frames.timestamp_ns : timestamp(camera_time, where));
  given.sweeps = radar_sweeps(radar, rig, frames.timestamp_ns);
  frames.sweeps = given.sweeps.views;
  frames.ego = ego_motion(ego);
  return given;
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
  out["ego_speed_estimated"] = health.ego_speed_estimated;
  out["ego_speed"] = health.ego_speed;
  out["ego_speed_residual"] = health.ego_speed_residual;
  out["past_frames"] = health.past_frames;
  return out;
}

namespace {

FloatArray map_array(const MapView& map) {
  return FloatArray({py::ssize_t(map.rows), py::ssize_t(map.columns)}, map.data);
}  // a copy

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
  out["boxes"] = boxes, out["scores"] = scores, out["labels"] = labels;
  out["health"] = health_dict(result.health, rig);
  out["segmentation"] = result.segmentation.data ? py::object(map_array(result.segmentation)) : py::object(py::none());
  out["debug"] = debug;
  out["timings_us"] = timings;
  out["total_us"] = result.total_us;
  return out;
}

py::dict infer(SharedDetector& self, py::handle images, py::handle radar, py::handle ego, py::handle time,
               py::handle camera_times) {
  const auto locked = lock(self);
  const SensorRig& rig = self.detector.rig();
  const Given given = given_frames(rig, self.detector.device() == "cuda", images, radar, ego, time, camera_times);
  const Result* result = nullptr;
  {
    py::gil_scoped_release release;
    result = &self.detector.infer(given.frames);
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
                                     double score_threshold, bool debug, bool stage_times) {
  DetectorOptions options;
  options.device = device;
  options.threads = threads;
  options.score_threshold = score_threshold;
  options.debug = debug;
  options.stage_times = stage_times;
  return std::unique_ptr<SharedDetector>(
      new SharedDetector{Detector(spec, rig, std::move(camera), std::move(bev), options), {}});
}

}  // namespace

void bind_detector(py::module_& m) {
  m.attr("MAX_THREADS") = ThreadPool::kMaxThreads;
  m.def("require_cuda", &require_cuda,
        "Raises Error device_unavailable where this process cannot use device \"cuda\", and says why.");
  py::class_<SharedDetector>(m, "Detector", py::module_local(), "Frames in, boxes out; see imkd_edge.Detector.")
      .def(py::init(&make), py::arg("spec"), py::arg("rig"), py::arg("camera"), py::arg("bev"),
           py::arg("device") = "auto", py::arg("threads") = 0, py::arg("score_threshold") = -1.0,
           py::arg("debug") = false, py::arg("stage_times") = false, py::call_guard<py::gil_scoped_release>())
      .def("infer", &infer, py::arg("frames"), py::arg("radar"), py::arg("ego") = py::none(),
           py::arg("timestamp_ns") = 0, py::arg("camera_timestamps_ns") = py::none())
      .def("set_rig", &set_rig, py::arg("rig"))
      .def("reset", &reset)
      .def("tensors", &tensors)
      .def("device_tensors", &device_tensors)
      .def_property_readonly("spec", [](const SharedDetector& self) { return self.detector.spec(); })
      .def_property_readonly("device", [](const SharedDetector& self) { return self.detector.device(); })
      .def_property_readonly("rig", &rig_of);
}
