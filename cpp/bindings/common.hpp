// Shared by the bindings: opaque lists, and checked views of the caller's arrays.
#pragma once
#include "text_caster.hpp"  // before its first use in pybind11's headers

#include <pybind11/eval.h>
#include <pybind11/native_enum.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "imkd/error.hpp"
#include "imkd/frames.hpp"
#include "imkd/result.hpp"
#include "imkd/rig.hpp"
#include "imkd/spec.hpp"

// Lists whose items Python changes in place.
PYBIND11_MAKE_OPAQUE(std::vector<imkd::RadarFeature>)
PYBIND11_MAKE_OPAQUE(std::vector<imkd::ClassSpec>)
PYBIND11_MAKE_OPAQUE(std::vector<imkd::CameraCalibration>)
PYBIND11_MAKE_OPAQUE(std::vector<imkd::RadarCalibration>)

namespace imkd::python {

namespace py = pybind11;
using FloatArray = py::array_t<float, py::array::c_style>;

// A float32 array of a shape (-1: any extent) as a dense one, copied only where it is not dense. Throws Error
// frame_bad_dtype, frame_bad_shape.
FloatArray float_array(py::handle value, const std::vector<py::ssize_t>& shape, const std::string& where);

// (H, W, 3) uint8 with any strides; None is an absent camera. The view is valid as long as `value` lives.
ImageView image_view(py::handle value, const std::string& where, py::ssize_t least = 1);

// A rigid (4, 4) transform. Throws Error frame_bad_dtype, frame_bad_shape, rig_not_rigid.
Mat4 rigid_transform(py::handle value, const std::string& where);

// checked: a non-finite number or a pose that is not rigid throws; as_given: it is passed on.
enum class Values { checked, as_given };

std::int64_t timestamp(py::handle value, const std::string& where);  // throws Error frame_bad_time

struct Sweeps {  // views and what keeps their memory alive
  std::vector<RadarSweep> views;
  std::vector<FloatArray> points;
};

// Views of a list of imkd_edge.frames.RadarSweep, or of a dict name -> (N, 5) array. A sweep without a time has the
// reference time.
Sweeps radar_sweeps(py::handle value, const SensorRig& rig, std::int64_t reference_ns, Values poses = Values::checked);

// Sets the frame's sweeps and ego motion, of its reference time and the rig. Returns the owners of the points' memory.
Sweeps read_motion(FrameSet& frames, const SensorRig& rig, py::handle sweeps, py::handle ego,
                   Values values = Values::checked);

// By camera of the rig: the caller's value or None, and its name in an error.
using CameraValues = std::vector<std::pair<py::object, std::string>>;
// The values of a dict by camera name, or of a list, in the rig's order; None: all are None.
CameraValues by_camera(py::handle argument, const SensorRig& rig, const std::string& what);

// Sets the cameras' times and ego poses, of the frame's reference time and rig.
void read_exposures(FrameSet& frames, const SensorRig& rig, py::handle times, py::handle poses,
                    Values values = Values::checked);

Ego ego_motion(py::handle value, Values values = Values::checked);  // of imkd_edge.frames.Ego or None

py::tuple warning_tuple(const Warning& warning);                   // (code, text), of imkd_edge.result.Warning
py::dict health_dict(const Health& health, const SensorRig& rig);  // the fields of imkd_edge.result.Health

}  // namespace imkd::python
