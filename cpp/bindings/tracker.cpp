// Tracker of imkd_edge.tracking: boxes as arrays in, tracks as arrays out.
#include "imkd/tracker.hpp"

#include "common.hpp"
#include "fields.hpp"
#include "live_fields.hpp"

using namespace imkd;
using namespace imkd::python;

namespace {

struct PyTracker {
  Tracker core;
  Result result;  // the input; its memory is used again

  py::dict update(py::handle boxes, py::handle scores, py::handle labels, py::handle time, py::handle ego);
};

void read_detections(py::handle boxes_in, py::handle scores_in, py::handle labels_in, std::vector<Detection>& out) {
  const FloatArray boxes = float_array(boxes_in, {-1, 9}, "boxes");
  const FloatArray scores = float_array(scores_in, {boxes.shape(0)}, "scores");
  const auto labels = py::array_t<std::int32_t, py::array::c_style>::ensure(labels_in);
  if (!labels) PyErr_Clear();
  if (!labels || labels.ndim() != 1 || labels.shape(0) != boxes.shape(0))
    throw Error(Code::frame_bad_shape, "must be (M,) int32, M = " + std::to_string(boxes.shape(0)), "labels",
                "give the class index of each box");
  out.clear();
  for (py::ssize_t i = 0; i < boxes.shape(0); ++i) {
    const float* b = boxes.data(i, 0);
    out.push_back({b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], scores.at(i), labels.at(i)});
  }
}

py::dict tracks_dict(const std::vector<Track>& tracks) {
  const auto count = static_cast<py::ssize_t>(tracks.size());
  FloatArray boxes({count, py::ssize_t(9)});
  py::list rows;
  for (py::ssize_t i = 0; i < count; ++i) {
    const Track& t = tracks[static_cast<std::size_t>(i)];
    const Detection& d = t.box;
    const float row[9] = {d.x, d.y, d.z, d.length, d.width, d.height, d.yaw, d.vx, d.vy};
    std::copy(row, row + 9, boxes.mutable_data(i, 0));
    rows.append(py::make_tuple(t.id, enum_name(t.state), d.label, d.score, t.velocity_measured, t.velocity_std, t.age,
                               t.coasting, t.hits, t.detection));
  }
  py::dict out;
  out["boxes"] = boxes;
  out["rows"] = rows;
  return out;
}

py::dict PyTracker::update(py::handle boxes, py::handle scores, py::handle labels, py::handle time, py::handle ego) {
  read_detections(boxes, scores, labels, result.detections);
  result.timestamp_ns = timestamp(time, "timestamp_ns");
  result.ego = ego_motion(ego, Values::as_given);
  return tracks_dict(core.update(result));
}

py::dict tracker_health(const PyTracker& self) {
  const TrackerHealth& health = self.core.health();
  py::dict out;
  out["over_ground"] = health.over_ground;
  out["detections_invalid"] = health.detections_invalid;
  out["detections_overflow"] = health.detections_overflow;
  out["restarts"] = health.restarts;
  out["repeats"] = health.repeats;
  return out;
}

using MotionTuple = std::tuple<std::string, double, double, double, double>;  // the fields of ClassMotion

std::unique_ptr<PyTracker> make_tracker(const ModelSpec& spec, double birth_score, double confirm_score, double max_age,
                                        double max_gap, int max_tracks, const std::vector<MotionTuple>& classes) {
  TrackerOptions options{birth_score, confirm_score, max_age, max_gap, max_tracks, {}};
  for (const auto& [name, position_std, velocity_std, speed_std, acceleration] : classes)
    options.classes.push_back({name, position_std, velocity_std, speed_std, acceleration});
  return std::unique_ptr<PyTracker>(new PyTracker{Tracker(spec, options), {}});
}

MotionTuple motion_tuple(const std::string& name) {
  const ClassMotion motion = class_motion(name);
  return {motion.name, motion.position_std, motion.velocity_std, motion.speed_std, motion.acceleration};
}

}  // namespace

void bind_tracker(py::module_& m) {
  py::class_<PyTracker>(m, "Tracker")
      .def(py::init(&make_tracker), py::arg("spec"), py::arg("birth_score"), py::arg("confirm_score"),
           py::arg("max_age"), py::arg("max_gap"), py::arg("max_tracks"), py::arg("classes"))
      .def("update", &PyTracker::update, py::arg("boxes"), py::arg("scores"), py::arg("labels"),
           py::arg("timestamp_ns"), py::arg("ego"))
      .def("health", &tracker_health)
      .def("reset", [](PyTracker& self) { self.core.reset(); });
  m.def("class_motion", &motion_tuple, py::arg("name"));
}
