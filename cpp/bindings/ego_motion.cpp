// EgoMotion of imkd_edge.ops: the one motion of a frame, for training, evaluation and drawing.
#include "imkd/ego_motion.hpp"

#include "common.hpp"
#include "fields.hpp"
#include "time_ns.hpp"

using namespace imkd;
using namespace imkd::python;

namespace {

EgoMotion make(const SensorRig& sensors, py::handle sweeps, py::handle timestamp_ns, py::handle ego, py::handle times,
               py::handle poses, double max_age) {
  const SensorRig rig = sensors.orthonormalised();
  FrameSet frames;
  frames.timestamp_ns = timestamp(timestamp_ns, "timestamp_ns");
  const Sweeps owners = read_motion(frames, rig, sweeps, ego);
  read_exposures(frames, rig, times, poses);
  py::gil_scoped_release release;
  return EgoMotion(rig, frames, max_age);
}

SensorRig py_exposure_rig(const EgoMotion& motion, const SensorRig& sensors, const GridSpec* grid) {
  const SensorRig rig = sensors.orthonormalised();
  if (rig.cameras.size() != motion.cameras())
    throw Error(Code::rig_mismatch,
                "has " + std::to_string(rig.cameras.size()) + " cameras, the motion was made for " +
                    std::to_string(motion.cameras()),
                "rig", "give the rig of the same frame");
  return exposure_rig(rig, motion, grid);
}

std::optional<Mat4> since(const EgoMotion& now, const EgoMotion& then) {
  return motion_between(then.ego(), now.ego(), seconds_between(then.timestamp_ns(), now.timestamp_ns()));
}

}  // namespace

void bind_ego_motion(py::module_& m) {
  py::class_<EgoMotion>(m, "EgoMotion", R"(How the vehicle moves around the reference time of one frame.

Two or more poses precede the twist, the twist precedes the speed estimated from static radar returns.

Args:
    rig: SensorRig.
    sweeps: list of RadarSweep, or dict name -> (N, 5) float32 of x, y, z m, intensity dB, radial velocity m/s.
    timestamp_ns: int, the reference time.
    ego: Ego or None.
    camera_timestamps_ns: camera name -> ns, or a list in the rig's order; left out: the reference time.
    camera_T_world_ego: camera name -> (4, 4) float64 ego pose at the exposure, or such a list; left out: unknown.
    max_age: s, of the sweeps from which the speed is estimated.

Raises:
    Error: E0201-E0205, E021x.)")
      .def(py::init(&make), py::arg("rig"), py::arg("sweeps"), py::arg("timestamp_ns"), py::arg("ego") = py::none(),
           py::arg("camera_timestamps_ns") = py::none(), py::arg("camera_T_world_ego") = py::none(),
           py::arg("max_age") = std::numeric_limits<double>::infinity())
      .def_property_readonly(
          "source", [](const EgoMotion& motion) { return enum_name(motion.source()); },
          "\"poses\", \"twist\", \"estimated\" or \"none\".")
      .def_property_readonly("timestamp_ns", &EgoMotion::timestamp_ns, "The reference time.")
      .def_property_readonly(
          "T_world_ego", [](const EgoMotion& motion) { return value_or_none(motion.ego().T_world_ego); },
          "(4, 4) float64 pose at the reference time, or None.")
      .def_property_readonly(
          "twist", [](const EgoMotion& motion) { return value_or_none(motion.ego().twist); },
          "(3,) float64 vx, vy m/s and yaw rate rad/s at the reference time, or None.")
      .def(
          "T_ref_at",
          [](const EgoMotion& motion, py::handle time) {
            return to_python(motion.T_ref_at(timestamp(time, "timestamp_ns")));
          },
          py::arg("timestamp_ns"), "(4, 4) float64: the ego frame of that time in the reference ego frame.")
      .def("exposure_rig", &py_exposure_rig, py::arg("rig"), py::arg("grid") = py::none(),
           R"(The rig with the cameras' poses at their exposures, in the reference ego frame.

Args:
    rig: SensorRig of the same frame.
    grid: GridSpec, for poses rounded as the lift rounds them: by less than an eighth of a cell.

Raises:
    Error: E021x.)")
      .def(
          "since", [](const EgoMotion& now, const EgoMotion& then) { return value_or_none(since(now, then)); },
          py::arg("then"),
          "(4, 4) float64 T_then_now from another frame of the same recording, or None where the motion is unknown or "
          "faster than 100 m/s.");
}
