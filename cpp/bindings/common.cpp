#include "common.hpp"

#include <cmath>
#include <map>

#include "shape_text.hpp"

namespace imkd::python {
namespace {

py::array numpy_array(py::handle value, const std::string& where) {
  if (!py::isinstance<py::array>(value))
    throw Error(Code::frame_bad_dtype, std::string("is a ") + Py_TYPE(value.ptr())->tp_name + ", not a NumPy array",
                where, "use numpy.asarray; of an array on the GPU, copy to the host first");
  return py::reinterpret_borrow<py::array>(value);
}

std::string dtype_text(const py::array& array) { return py::str(array.dtype()).cast<std::string>(); }

std::vector<py::ssize_t> shape_of(const py::array& array) { return {array.shape(), array.shape() + array.ndim()}; }

void add_sweep(Sweeps& out, const SensorRig& rig, const std::string& radar, py::handle points,
               std::int64_t timestamp_ns, std::optional<Mat4> T_world_ego) {
  RadarSweep sweep;
  sweep.radar = rig.radar_index(radar);
  if (sweep.radar < 0)
    throw Error(Code::frame_unknown_sensor, "the rig has no radar \"" + radar + "\"", "radar",
                "use a name of the rig's radars");
  out.points.push_back(float_array(points, {-1, 5}, "radar \"" + radar + "\""));
  sweep.points = out.points.back().data();
  if (out.points.back().shape(0) > 100000000)
    throw Error(Code::frame_bad_shape, std::to_string(out.points.back().shape(0)) + " points",
                "radar \"" + radar + "\"", "at most 1e8: split the sweep");
  sweep.count = static_cast<int>(out.points.back().shape(0));
  sweep.timestamp_ns = timestamp_ns;
  sweep.T_world_ego = T_world_ego;
  out.views.push_back(sweep);
}

py::object member(py::handle object, const char* name, const std::string& where) {
  if (!py::hasattr(object, name))
    throw Error(Code::frame_bad_dtype, std::string("a ") + Py_TYPE(object.ptr())->tp_name + " has no ." + name, where,
                "use the classes of imkd_edge.frames");
  return object.attr(name);
}

std::string text(py::handle value, const std::string& where) {
  if (!py::isinstance<py::str>(value))
    throw Error(Code::frame_bad_dtype, "has a sensor's name of type " + std::string(Py_TYPE(value.ptr())->tp_name),
                where, "use a string, a name of the rig");
  return value.cast<std::string>();
}

}  // namespace

FloatArray float_array(py::handle value, const std::vector<py::ssize_t>& shape, const std::string& where) {
  const py::array array = numpy_array(value, where);
  if (!py::isinstance<py::array_t<float>>(array))
    throw Error(Code::frame_bad_dtype, "is " + dtype_text(array) + ", must be float32", where,
                "use .astype(numpy.float32)");
  const auto extents = shape_of(array);
  bool same = extents.size() == shape.size();
  for (std::size_t i = 0; same && i < shape.size(); ++i) same = shape[i] < 0 || shape[i] == extents[i];
  if (!same)
    throw Error(Code::frame_bad_shape, "has shape " + shape_text(extents), where, "must be " + shape_text(shape));
  return FloatArray::ensure(array);
}

namespace {

// A uint8 array of a number of dimensions, each of extent least..65536; a reference to the caller's.
py::array byte_array(py::handle value, const std::string& where, int dimensions, const char* form,
                     py::ssize_t least = 1) {
  const py::array array = numpy_array(value, where);
  if (!py::isinstance<py::array_t<std::uint8_t>>(array))
    throw Error(Code::frame_bad_dtype, "is " + dtype_text(array) + ", must be uint8", where, "grey levels 0..255, RGB");
  bool fits = array.ndim() == dimensions;
  for (py::ssize_t extent : shape_of(array)) fits &= extent >= least && extent <= 65536;
  if (!fits) throw Error(Code::frame_bad_shape, "has shape " + shape_text(shape_of(array)), where, form);
  return array;
}

YuvMatrix yuv_matrix(py::handle name, const std::string& where) {
  const std::map<std::string, YuvMatrix> known{{"bt601", YuvMatrix::bt601},
                                               {"bt601_full", YuvMatrix::bt601_full},
                                               {"bt709", YuvMatrix::bt709},
                                               {"bt709_full", YuvMatrix::bt709_full}};
  const auto matrix = py::isinstance<py::str>(name) ? known.find(name.cast<std::string>()) : known.end();
  if (matrix != known.end()) return matrix->second;
  throw Error(Code::frame_bad_dtype, "has the unknown colour matrix " + py::repr(name).cast<std::string>(), where,
              "use \"bt601\", \"bt601_full\", \"bt709\" or \"bt709_full\"");
}

ImageView nv12_view(const py::tuple& planes, const std::string& where) {
  constexpr const char* kForm = "NV12 is (Y (height, width), UV (height / 2, width / 2, 2)), of even height and width";
  if (planes.size() != 2 && planes.size() != 3)
    throw Error(Code::frame_bad_shape, "is a tuple of " + std::to_string(planes.size()) + " items", where, kForm);
  const py::array y = byte_array(planes[0], where, 2, kForm), uv = byte_array(planes[1], where, 3, kForm);
  const py::ssize_t height = y.shape(0), width = y.shape(1);
  if (height % 2 != 0 || width % 2 != 0 || shape_of(uv) != std::vector<py::ssize_t>{height / 2, width / 2, 2})
    throw Error(Code::frame_bad_shape,
                "has planes of shapes " + shape_text(shape_of(y)) + " and " + shape_text(shape_of(uv)), where, kForm);
  if (y.strides(1) != 1 || uv.strides(2) != 1 || uv.strides(1) != 2)
    throw Error(Code::frame_bad_shape, "has gaps between the pixels of a row", where,
                "rows may be padded, pixels may not: use numpy.ascontiguousarray");
  return {static_cast<const std::uint8_t*>(y.data()),
          static_cast<int>(width),
          static_cast<int>(height),
          y.strides(0),
          1,
          0,
          static_cast<const std::uint8_t*>(uv.data()),
          uv.strides(0),
          planes.size() == 3 ? yuv_matrix(planes[2], where) : YuvMatrix::bt601};
}

}  // namespace

ImageView image_view(py::handle value, const std::string& where, py::ssize_t least) {
  if (value.is_none()) return {};
  if (py::isinstance<py::tuple>(value)) return nv12_view(py::reinterpret_borrow<py::tuple>(value), where);
  constexpr const char* kForm = "must be (height, width, 3)";
  const py::array array = byte_array(value, where, 3, kForm, least);
  if (array.shape(2) != 3) throw Error(Code::frame_bad_shape, "has shape " + shape_text(shape_of(array)), where, kForm);
  return {static_cast<const std::uint8_t*>(array.data()),
          static_cast<int>(array.shape(1)),
          static_cast<int>(array.shape(0)),
          array.strides(0),
          array.strides(1),
          array.strides(2)};
}

static Mat4 matrix(py::handle value, const std::string& where) {
  const py::array original = numpy_array(value, where);
  const auto array = py::array_t<double, py::array::c_style | py::array::forcecast>::ensure(original);
  if (!array) {
    PyErr_Clear();
    throw Error(Code::frame_bad_dtype, "is " + dtype_text(original) + ", must be float64", where,
                "use .astype(numpy.float64)");
  }
  if (shape_of(array) != std::vector<py::ssize_t>{4, 4})
    throw Error(Code::frame_bad_shape, "has shape " + shape_text(shape_of(array)), where, "must be (4, 4)");
  Mat4 T;
  std::copy(array.data(), array.data() + 16, T.begin());
  return T;
}

static Mat4 pose(py::handle value, const std::string& where, Values values) {
  return values == Values::checked ? rigid_transform(value, where) : matrix(value, where);
}

Mat4 rigid_transform(py::handle value, const std::string& where) {
  return orthonormalised(matrix(value, where), where);
}

std::int64_t timestamp(py::handle value, const std::string& where) {
  try {
    return value.cast<std::int64_t>();
  } catch (const py::cast_error&) {
    throw Error(
        Code::frame_bad_time,
        "is " + py::repr(value).cast<std::string>() + ", must be a whole number of nanoseconds that fits 64 bits",
        where, "use an int");
  }
}

Sweeps radar_sweeps(py::handle value, const SensorRig& rig, std::int64_t reference_ns, Values poses) {
  Sweeps out;
  if (value.is_none()) return out;
  if (py::isinstance<py::dict>(value)) {
    for (const auto& [name, points] : py::reinterpret_borrow<py::dict>(value))
      if (!points.is_none()) add_sweep(out, rig, text(name, "radar"), points, reference_ns, std::nullopt);
    return out;
  }
  if (!py::isinstance<py::sequence>(value) || py::isinstance<py::array>(value))
    throw Error(
        Code::frame_bad_dtype,
        "is a " + std::string(Py_TYPE(value.ptr())->tp_name) + ", neither a list of RadarSweep nor a dict of arrays",
        "radar", "use {name: points} or [RadarSweep(...)]");
  std::size_t index = 0;
  for (const py::handle sweep : py::reinterpret_borrow<py::sequence>(value)) {
    const std::string where = "radar[" + std::to_string(index++) + "]";
    const std::string name = text(member(sweep, "radar", where), where);
    const py::object time = member(sweep, "timestamp_ns", where), T = member(sweep, "T_world_ego", where);
    add_sweep(out, rig, name, member(sweep, "points", where),
              time.is_none() ? reference_ns : timestamp(time, where + ".timestamp_ns"),
              T.is_none() ? std::nullopt : std::optional<Mat4>(pose(T, where + ".T_world_ego", poses)));
  }
  return out;
}

Ego ego_motion(py::handle value, Values values) {
  Ego ego;
  if (value.is_none()) return ego;
  const py::object T = member(value, "T_world_ego", "ego"), twist = member(value, "twist", "ego");
  if (!T.is_none()) ego.T_world_ego = pose(T, "ego.T_world_ego", values);
  if (twist.is_none()) return ego;
  const auto array = py::array_t<double, py::array::c_style | py::array::forcecast>::ensure(twist);
  if (!array) PyErr_Clear();
  if (!array || array.ndim() != 1 || array.shape(0) != 3)
    throw Error(Code::frame_bad_shape, "must be 3 numbers", "ego.twist", "give vx, vy m/s and the yaw rate rad/s");
  ego.twist = Vec3{array.at(0), array.at(1), array.at(2)};
  for (double v : *ego.twist)
    if (values == Values::checked && !std::isfinite(v))
      throw Error(Code::frame_bad_dtype, std::to_string(v) + " is not finite", "ego.twist",
                  "use None where the motion is unknown");
  return ego;
}

// The values of a dict by camera name, or of a list, in the rig's order.
CameraValues by_camera(py::handle argument, const SensorRig& rig, const std::string& what) {
  CameraValues values;
  for (const CameraCalibration& camera : rig.cameras)
    values.emplace_back(py::none(), what + " of camera \"" + camera.name + "\"");
  if (argument.is_none()) return values;
  if (py::isinstance<py::dict>(argument)) {
    for (const auto& [name, value] : py::reinterpret_borrow<py::dict>(argument)) {
      const int index = py::isinstance<py::str>(name) ? rig.camera_index(name.cast<std::string>()) : -1;
      if (index < 0)
        throw Error(Code::frame_unknown_sensor, "the rig has no camera " + py::repr(name).cast<std::string>(), what,
                    "use a name of the rig's cameras");
      values[static_cast<std::size_t>(index)].first = py::reinterpret_borrow<py::object>(value);
    }
    return values;
  }
  if (!py::isinstance<py::sequence>(argument) || py::isinstance<py::str>(argument) ||
      py::isinstance<py::array>(argument))
    throw Error(Code::frame_bad_dtype,
                std::string("is a ") + Py_TYPE(argument.ptr())->tp_name + ", neither a dict nor a list", what,
                "give {camera name: value}, or a list in the rig's order");
  const auto list = py::reinterpret_borrow<py::sequence>(argument);
  if (list.size() != values.size())
    throw Error(Code::frame_count,
                std::to_string(list.size()) + " entries for " + std::to_string(values.size()) + " cameras", what,
                "one per camera in the rig's order; None where a camera is absent");
  for (std::size_t i = 0; i < values.size(); ++i) values[i].first = list[i];
  return values;
}

Sweeps read_motion(FrameSet& frames, const SensorRig& rig, py::handle sweeps, py::handle ego, Values values) {
  Sweeps read = radar_sweeps(sweeps, rig, frames.timestamp_ns, values);
  frames.sweeps = read.views;
  frames.ego = ego_motion(ego, values);
  return read;
}

void read_exposures(FrameSet& frames, const SensorRig& rig, py::handle times, py::handle poses, Values values) {
  for (const auto& [time, where] : by_camera(times, rig, "timestamp"))
    frames.camera_timestamps_ns.push_back(time.is_none() ? frames.timestamp_ns : timestamp(time, where));
  if (poses.is_none()) return;
  for (const auto& [T, where] : by_camera(poses, rig, "T_world_ego"))
    frames.camera_T_world_ego.push_back(T.is_none() ? std::nullopt : std::optional<Mat4>(pose(T, where, values)));
}

py::tuple warning_tuple(const Warning& warning) {
  // A text that was cut may end in half a character.
  return py::make_tuple(code_name(warning.code), py::bytes(warning.text.data()).attr("decode")("utf-8", "replace"));
}

}  // namespace imkd::python
