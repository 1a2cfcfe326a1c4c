// What the bindings share: opaque lists, and the caller's arrays checked and turned into the core's views.
#pragma once
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

// float32 of that shape (-1: any), dense; copied only where its layout demands it. Error frame_bad_dtype,
// frame_bad_shape.
FloatArray float_array(py::handle value, const std::vector<py::ssize_t>& shape, const std::string& where);

// (H, W, 3) uint8 with any strides; None is an absent camera. The view is valid as long as `value` lives.
ImageView image_view(py::handle value, const std::string& where);

// Rigid (4, 4). Error frame_bad_dtype, frame_bad_shape, rig_not_rigid.
Mat4 rigid_transform(py::handle value, const std::string& where);

enum class Values {
  checked,
  as_given
};  // whether numbers that are not finite, or poses that are not rigid, are the caller's mistake

std::int64_t timestamp(py::handle value, const std::string& where);  // Error frame_bad_time

struct Sweeps {  // views and what keeps their memory alive
  std::vector<RadarSweep> views;
  std::vector<FloatArray> points;
};

// A list of imkd_edge.frames.RadarSweep, or a dict name -> (N, 5) array. A sweep without a time was taken at the
// reference time.
Sweeps radar_sweeps(py::handle value, const SensorRig& rig, std::int64_t reference_ns, Values poses = Values::checked);

Ego ego_motion(py::handle value, Values values = Values::checked);  // imkd_edge.frames.Ego or None

py::dict health_dict(const Health& health, const SensorRig& rig);  // the fields of imkd_edge.result.Health

}  // namespace imkd::python
