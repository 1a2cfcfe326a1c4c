// The ops of the cameras on NumPy arrays: every input is checked, the GIL is released during the op.
#include "imkd/ops.hpp"

#include <cmath>

#include "imkd/coverage.hpp"
#include "ops_common.hpp"
#include "sensor_memory.hpp"
#include "time_ns.hpp"

using namespace imkd;
using namespace imkd::python;

namespace {

ImageCrop make_crop(double scale, double left, double top) {
  if (!(scale > 0) || !std::isfinite(scale) || !std::isfinite(left) || !std::isfinite(top))
    throw Error(Code::frame_bad_shape,
                "scale " + std::to_string(scale) + ", left " + std::to_string(left) + ", top " + std::to_string(top),
                "ImageCrop", "a scale above 0, all finite: use image_crop()");
  return {scale, left, top};
}

ImageCrop checked_image_crop(const ImageSpec& spec, int width, int height) {
  spec.check();
  if (width < 1 || height < 1)
    throw Error(Code::frame_bad_shape, std::to_string(width) + "x" + std::to_string(height) + " px", "width, height",
                "give the size of the raw image, at least 1x1");
  return image_crop(spec, width, height);
}

struct Images {
  std::vector<py::object> owners;  // the sequence may make each image when it is asked for, or change meanwhile
  std::vector<ImageView> views;
};

Images image_views(const py::sequence& sequence, const std::vector<ImageCrop>& crops, const ImageSpec& spec) {
  spec.check();
  Images images;
  for (std::size_t i = 0; i < sequence.size(); ++i) {
    const std::string where = "images[" + std::to_string(i) + "]";
    images.owners.emplace_back(sequence[i]);
    images.views.push_back(image_view(images.owners.back(), where));
    if (images.views.back().data) check_layout(images.views.back(), where);
  }
  if (crops.size() != images.views.size())
    throw Error(Code::frame_count,
                std::to_string(crops.size()) + " crops for " + std::to_string(images.views.size()) + " images", "crops",
                "one crop per image");
  return images;
}

FloatArray py_preprocess_images(const py::sequence& images, const std::vector<ImageCrop>& crops,
                                const ImageSpec& spec) {
  const Images in = image_views(images, crops, spec);
  const std::vector<ImageView>& views = in.views;
  FloatArray out = empty({py::ssize_t(views.size()), 3, spec.height, spec.width});
  float* data = out.mutable_data();
  py::gil_scoped_release release;
  preprocess_images(views.data(), crops.data(), static_cast<int>(views.size()), spec, data, *pool());
  return out;
}

py::array_t<std::int8_t> py_quantize_images(const py::sequence& images, const std::vector<ImageCrop>& crops,
                                            const ImageSpec& spec, float scale) {
  const Images in = image_views(images, crops, spec);
  const std::vector<ImageView>& views = in.views;
  if (!(scale > 0) || !std::isfinite(scale))
    throw Error(Code::spec_bad_value, std::to_string(scale) + " is not finite and above 0", "scale",
                "give the scale of the network's first QuantizeLinear");
  py::array_t<std::int8_t> out(
      {py::ssize_t(views.size()), py::ssize_t(3), py::ssize_t(spec.height), py::ssize_t(spec.width)});
  std::int8_t* data = out.mutable_data();
  py::gil_scoped_release release;
  quantize_images(views.data(), crops.data(), static_cast<int>(views.size()), spec, scale, data, *pool());
  return out;
}

py::array_t<double> py_image_rays(const ImageSpec& spec, const CameraCalibration& camera,
                                  const std::optional<ImageCrop>& crop) {
  spec.check();
  SensorRig{{camera}, {}, {}}.check();
  const ImageCrop used = crop ? *crop : image_crop(spec, camera.width, camera.height);
  py::array_t<double> out({py::ssize_t(spec.feature_height()), py::ssize_t(spec.feature_width()), py::ssize_t(3)});
  double* data = out.mutable_data();
  py::gil_scoped_release release;
  image_rays(spec, camera, used, data);
  return out;
}

// (..., from) float64 -> (..., to) float64, row by row.
template <void op(const CameraCalibration&, const double*, std::size_t, double*)>
py::array_t<double> py_through_lens(const CameraCalibration& camera, const py::handle& values, py::ssize_t from,
                                    py::ssize_t to, const char* where) {
  SensorRig{{camera}, {}, {}}.check();
  const auto in = py::array_t<double, py::array::c_style | py::array::forcecast>::ensure(values);
  if (!in) PyErr_Clear();
  if (!in || in.ndim() < 1 || in.shape(in.ndim() - 1) != from)
    throw Error(Code::frame_bad_shape,
                in ? "the shape is " + py::str(in.attr("shape")).cast<std::string>() : "no numbers", where,
                "an array of shape (..., " + std::to_string(from) + ")");
  std::vector<py::ssize_t> shape(in.shape(), in.shape() + in.ndim());
  shape.back() = to;
  py::array_t<double> out(shape);
  const std::size_t count = in.size() / from;
  const double* data = in.data();
  double* result = out.mutable_data();
  py::gil_scoped_release release;
  op(camera, data, count, result);
  return out;
}

std::vector<bool> py_usable_cameras(const ModelSpec& spec, const SensorRig& sensors, py::handle timestamp_ns,
                                    py::handle times) {
  spec.check();
  const SensorRig rig = sensors.orthonormalised();
  FrameSet frames;
  frames.timestamp_ns = timestamp(timestamp_ns, "timestamp_ns");
  read_exposures(frames, rig, times, py::none());
  py::gil_scoped_release release;
  const std::vector<CameraCoverage> coverage = camera_coverage(spec, rig);
  std::vector<bool> result;
  for (std::size_t i = 0; i < coverage.size(); ++i) {
    const double age = seconds_between(frames.camera_time(i), frames.timestamp_ns);
    result.push_back(usable(camera_state(coverage[i], age)));
  }
  return result;
}

// A table and the sizes it was made for: another spec would index beyond its tensors.
struct SizedTable : LiftTable {
  std::vector<int> sizes;
};

std::vector<int> lift_sizes(const ModelSpec& s) {
  return {s.cameras, s.depth.bins, s.image.feature_height(), s.image.feature_width(), s.grid.height(), s.grid.width()};
}

SizedTable py_lift_table(const ModelSpec& spec, const SensorRig& sensors, std::optional<std::vector<ImageCrop>> crops) {
  spec.check();
  const SensorRig rig = sensors.orthonormalised();
  if (!crops) {
    crops.emplace();
    for (const CameraCalibration& camera : rig.cameras)
      crops->push_back(image_crop(spec.image, camera.width, camera.height));
  }
  if (crops->size() != rig.cameras.size())
    throw Error(Code::frame_count,
                std::to_string(crops->size()) + " crops for " + std::to_string(rig.cameras.size()) + " cameras",
                "crops", "one crop per camera");
  py::gil_scoped_release release;
  return {lift_table(spec, rig, crops->data()), lift_sizes(spec)};
}

FloatArray py_lift(const ModelSpec& spec, const SizedTable& table, py::handle depth, py::handle context) {
  spec.check();
  if (table.sizes != lift_sizes(spec))
    throw Error(Code::frame_bad_shape, "is of another spec", "table", "make one with lift_table() for this spec");
  const py::ssize_t n = spec.cameras, h = spec.image.feature_height(), w = spec.image.feature_width();
  const FloatArray d = float_array(depth, {n, spec.depth.bins, h, w}, "depth");
  const FloatArray c = float_array(context, {n, spec.context_channels, h, w}, "context");
  FloatArray out = empty({spec.context_channels + 1, spec.grid.height(), spec.grid.width()});
  float* data = out.mutable_data();
  const float *depth_data = d.data(), *context_data = c.data();
  py::gil_scoped_release release;
  lift(spec, table, depth_data, context_data, data, static_cast<float*>(scratch(lift_workspace(spec) * sizeof(float))),
       *pool());
  return out;
}

// A read-only view that keeps the table alive.
py::object indices(py::handle table, const std::vector<std::int32_t>& values) {
  py::array_t<std::int32_t> view(values.size(), values.data(), table);
  view.attr("setflags")(py::arg("write") = false);
  return view;
}

template <std::vector<std::int32_t> LiftTable::* member>
py::object column(py::handle self) {
  return indices(self, self.cast<const SizedTable&>().*member);
}

void bind_images(py::module_& m) {
  py::class_<ImageCrop>(m, "ImageCrop", "Input pixel u is at raw pixel (u + 0.5 + left) / scale - 0.5.")
      .def(py::init(&make_crop), py::arg("scale") = 1.0, py::arg("left") = 0.0, py::arg("top") = 0.0)
      .def_readonly("scale", &ImageCrop::scale)
      .def_readonly("left", &ImageCrop::left)
      .def_readonly("top", &ImageCrop::top)
      .def("__repr__", [](const ImageCrop& c) {
        return "ImageCrop(scale=" + std::to_string(c.scale) + ", left=" + std::to_string(c.left) +
               ", top=" + std::to_string(c.top) + ")";
      });
  m.def("image_crop", &checked_image_crop, py::arg("spec"), py::arg("width"), py::arg("height"),
        R"(The smallest uniform scale at which a raw image covers the network's input, centred in x, anchored in y.

Args:
    spec: ImageSpec.
    width, height: px of the raw image.

Raises:
    Error: E0104, E0202.)");
  m.def("preprocess_images", &py_preprocess_images, py::arg("images"), py::arg("crops"), py::arg("image_spec"),
        R"(Bilinear resize, crop and normalisation in one pass.

Pixel centres are at half integers; edge pixels are repeated outside the image.

Args:
    images: list of (H, W, 3) uint8 RGB with any strides, or None for an absent camera, which gives zeros.
    crops: list of ImageCrop.
    image_spec: ImageSpec.

Returns:
    (N, 3, H, W) float32.

Raises:
    Error: E0104, E0201, E0202, E0204.)");
  m.def("quantize_images", &py_quantize_images, py::arg("images"), py::arg("crops"), py::arg("image_spec"),
        py::arg("scale"),
        R"(preprocess_images over scale, rounded half to even and clamped to -128..127.

Args:
    images, crops, image_spec: as in preprocess_images.
    scale: of the quantization.

Returns:
    (N, 3, H, W) int8.

Raises:
    Error: E0104, E0201, E0202, E0204.

Source: QuantizeLinear of ONNX, opset 13, zero point 0.)");
  m.def("image_rays", &py_image_rays, py::arg("image_spec"), py::arg("camera"), py::arg("crop") = py::none(),
        R"(Rays of a camera's feature pixels, through its crop and its lens.

Args:
    image_spec: ImageSpec.
    camera: CameraCalibration.
    crop: ImageCrop of the camera; by default its image_crop.

Returns:
    (h, w, 3) float64: (x, y, 1) m, the point at optical depth 1 m in the camera frame; nan where the lens has no ray,
    or one 90 degrees or more off the axis, which has no optical depth.

Raises:
    Error: E0104, E021x.

Source: distortion models of Brown-Conrady and Kannala-Brandt, as in OpenCV.)");
}

void bind_lens(py::module_& m) {
  m.def(
      "project",
      [](const CameraCalibration& camera, const py::object& points) {
        return py_through_lens<&project>(camera, points, 3, 2, "points");
      },
      py::arg("camera"), py::arg("points"),
      R"(Raw pixels of points, through the lens: the one projection of drawing, targets and the synthetic world.

Args:
    camera: CameraCalibration.
    points: (..., 3) m in the camera frame: x right, y down, z along the optical axis.

Returns:
    (..., 2) float64 px, pixel centres at integers, inside the image or not; nan where the lens has none: at or behind
    the plane z = 0 (fisheye: beyond the angle up to which its image grows, at most 180 degrees off the axis), or beyond
    the radius up to which the image of a polynomial grows.

Raises:
    Error: E0202, E021x.

Source: distortion models of Brown-Conrady and Kannala-Brandt, as in OpenCV's projectPoints.)");
  m.def(
      "pixel_rays",
      [](const CameraCalibration& camera, const py::object& pixels) {
        return py_through_lens<&pixel_rays>(camera, pixels, 2, 3, "pixels");
      },
      py::arg("camera"), py::arg("pixels"),
      R"(Rays of raw pixels, through the lens: the inverse of project.

Args:
    camera: CameraCalibration.
    pixels: (..., 2) px of the raw image.

Returns:
    (..., 3) float64 unit vectors in the camera frame, behind the plane z = 0 too for a fisheye; nan where the lens has
    no ray.

Raises:
    Error: E0202, E021x.)");
}

void bind_lift(py::module_& m) {
  py::class_<SizedTable>(m, "LiftTable",
                         "Frustum points sorted by BEV cell, then by camera, depth bin, row, column; int32 arrays.")
      .def_property_readonly("cells", &column<&LiftTable::cells>, "(K,) row * width + column, strictly rising")
      .def_property_readonly("starts", &column<&LiftTable::starts>, "(K + 1,) interval of each cell in points")
      .def_property_readonly("points", &column<&LiftTable::points>, "(P,) index into depth (N, D, h, w)")
      .def_property_readonly("pixels", &column<&LiftTable::pixels>, "(P,) index into (N, h, w)");
  m.def("usable_cameras", &py_usable_cameras, py::arg("spec"), py::arg("rig"), py::arg("timestamp_ns"),
        py::arg("camera_timestamps_ns") = py::none(),
        R"(Which cameras the runtime lifts: those that see the grid, where their image is not too old.

Args:
    spec: ModelSpec.
    rig: SensorRig.
    timestamp_ns: int, the reference time.
    camera_timestamps_ns: camera name -> ns, or a list in the rig's order; left out: the reference time.

Returns:
    list of bool in the rig's order; False: Detector discards the image, its health says "unusable" or "stale".

Raises:
    Error: E0104, E0203, E0204, E0205, E021x.)");
  m.def("lift_table", &py_lift_table, py::arg("spec"), py::arg("rig"), py::arg("crops") = py::none(),
        R"(The BEV cell of every frustum point, from the calibration.

Args:
    spec: ModelSpec.
    rig: SensorRig with at most spec.cameras cameras.
    crops: one ImageCrop per camera; by default image_crop of each.

Returns:
    LiftTable.

Raises:
    Error: E0104, E0204, E021x.

Source: Philion and Fidler, Lift, Splat, Shoot, ECCV 2020; distortion models of Brown-Conrady and Kannala-Brandt.)");
  m.def("lift", &py_lift, py::arg("spec"), py::arg("table"), py::arg("depth"), py::arg("context"),
        R"(Sum over each cell's frustum points of depth * context; the last channel sums depth alone.

Args:
    spec: ModelSpec.
    table: LiftTable of the spec.
    depth: (N, D, h, w) float32 probabilities.
    context: (N, C, h, w) float32.

Returns:
    (C + 1, H, W) float32.

Raises:
    Error: E0104, E0201, E0202.)");
}

}  // namespace

void bind_camera_ops(py::module_& m) {
  bind_images(m);
  bind_lens(m);
  bind_lift(m);
}
