// The ops, NumPy in and out; every input is checked, the GIL is released while the core works.
#include "imkd/ops.hpp"

#include <cmath>
#include <memory>
#include <mutex>

#include "common.hpp"

using namespace imkd;
using namespace imkd::python;

namespace {

std::mutex pool_mutex;
std::shared_ptr<ThreadPool> shared_pool;

std::shared_ptr<ThreadPool> pool() {
  std::lock_guard<std::mutex> lock(pool_mutex);
  if (!shared_pool) shared_pool = std::make_shared<ThreadPool>();
  return shared_pool;
}

void set_threads(int threads) {
  auto fresh = std::make_shared<ThreadPool>(threads);
  std::lock_guard<std::mutex> lock(pool_mutex);
  shared_pool = std::move(fresh);
}

// Scratch of this thread, kept between calls: fresh pages would cost more than some ops.
void* scratch(std::size_t bytes) {
  thread_local std::vector<std::max_align_t> memory;
  const std::size_t units = bytes / sizeof(std::max_align_t) + 1;
  if (memory.size() < units) memory.resize(units);
  return memory.data();
}

FloatArray empty(const std::vector<py::ssize_t>& shape) { return FloatArray(shape); }

ImageCrop make_crop(double scale, double left, double top) {
  if (!(scale > 0) || !std::isfinite(scale) || !std::isfinite(left) || !std::isfinite(top))
    throw Error(Code::frame_bad_shape, "a crop needs a finite scale above 0 and a finite place", "ImageCrop",
                "see image_crop()");
  return {scale, left, top};
}

ImageCrop checked_image_crop(const ImageSpec& spec, int width, int height) {
  spec.check();
  if (width < 1 || height < 1)
    throw Error(Code::frame_bad_shape, "a raw image has at least one pixel", "width, height");
  return image_crop(spec, width, height);
}

std::vector<ImageView> image_views(const py::sequence& images, const std::vector<ImageCrop>& crops,
                                   const ImageSpec& spec) {
  spec.check();
  std::vector<ImageView> views;
  for (std::size_t i = 0; i < images.size(); ++i)
    views.push_back(image_view(images[i], "images[" + std::to_string(i) + "]"));
  if (crops.size() != views.size())
    throw Error(Code::frame_count,
                std::to_string(crops.size()) + " crops for " + std::to_string(views.size()) + " images", "crops",
                "one crop per image");
  return views;
}

FloatArray py_preprocess_images(const py::sequence& images, const std::vector<ImageCrop>& crops,
                                const ImageSpec& spec) {
  const std::vector<ImageView> views = image_views(images, crops, spec);
  FloatArray out = empty({py::ssize_t(views.size()), 3, spec.height, spec.width});
  float* data = out.mutable_data();
  py::gil_scoped_release release;
  preprocess_images(views.data(), crops.data(), static_cast<int>(views.size()), spec, data, *pool());
  return out;
}

py::array_t<std::int8_t> py_quantize_images(const py::sequence& images, const std::vector<ImageCrop>& crops,
                                            const ImageSpec& spec, float scale) {
  const std::vector<ImageView> views = image_views(images, crops, spec);
  if (!(scale > 0) || !std::isfinite(scale))
    throw Error(Code::spec_bad_value, "must be finite and above 0", "scale",
                "give the scale of the network's first QuantizeLinear");
  py::array_t<std::int8_t> out(
      {py::ssize_t(views.size()), py::ssize_t(3), py::ssize_t(spec.height), py::ssize_t(spec.width)});
  std::int8_t* data = out.mutable_data();
  py::gil_scoped_release release;
  quantize_images(views.data(), crops.data(), static_cast<int>(views.size()), spec, scale, data, *pool());
  return out;
}

struct SizedTable
    : LiftTable {  // with the sizes that it was made for, so that no other spec indexes beyond its tensors
  std::vector<int> sizes;
};

std::vector<int> lift_sizes(const ModelSpec& s) {
  return {s.cameras, s.depth.bins, s.image.feature_height(), s.image.feature_width(), s.grid.height(), s.grid.width()};
}

SizedTable py_lift_table(const ModelSpec& spec, const SensorRig& rig, std::optional<std::vector<ImageCrop>> crops) {
  spec.check();
  rig.check();
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
    throw Error(Code::frame_bad_shape, "was made for another spec", "table", "make it anew with lift_table()");
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

std::pair<FloatArray, RadarStats> py_voxelize_radar(const ModelSpec& spec, const SensorRig& rig, py::handle sweeps,
                                                    py::handle timestamp_ns, py::handle ego) {
  spec.check();
  rig.check();
  FrameSet frames;
  frames.timestamp_ns = timestamp(timestamp_ns, "timestamp_ns");
  const Sweeps given = radar_sweeps(sweeps, rig, frames.timestamp_ns);
  frames.sweeps = given.views;
  frames.ego = ego_motion(ego);
  FloatArray out = empty({py::ssize_t(spec.radar.features.size()), spec.radar_height(), spec.radar_width()});
  float* data = out.mutable_data();
  RadarStats stats;
  {
    py::gil_scoped_release release;
    std::vector<RadarInput> inputs(frames.sweeps.size());
    Health health;
    const int count = resolve_sweeps(spec, rig, frames, inputs.data(), health);
    stats = voxelize_radar(spec, inputs.data(), count, data, scratch(radar_workspace(spec)), *pool());
  }
  return {out, stats};
}

EgoSpeed py_estimate_ego_speed(const SensorRig& rig, py::handle sweeps) {
  rig.check();
  const Sweeps given = radar_sweeps(sweeps, rig, 0);
  py::gil_scoped_release release;
  return estimate_ego_speed(rig, given.views.data(), static_cast<int>(given.views.size()));
}

FloatArray py_warp_bev(const GridSpec& grid, py::handle features, py::handle T_then_now) {
  grid.check();
  const FloatArray given = float_array(features, {-1, grid.height(), grid.width()}, "features");
  const Mat4 T = rigid_transform(T_then_now, "T_then_now");
  FloatArray out = empty({given.shape(0), given.shape(1), given.shape(2)});
  const float* data = given.data();
  const int channels = static_cast<int>(given.shape(0));
  float* warped = out.mutable_data();
  py::gil_scoped_release release;
  warp_bev(grid, data, channels, T, warped, *pool());
  return out;
}

py::tuple py_decode(const ModelSpec& spec, py::handle heatmap, py::handle box) {
  spec.check();
  const py::ssize_t classes = spec.head.classes.size(), h = spec.grid.height(), w = spec.grid.width();
  const FloatArray heat = float_array(heatmap, {classes, h, w}, "heatmap");
  const FloatArray regression = float_array(box, {py::ssize_t(spec.head.groups()) * kBoxChannels, h, w}, "box");
  const float *heat_data = heat.data(), *box_data = regression.data();
  std::vector<Detection> found;
  {
    py::gil_scoped_release release;
    decode(spec, heat_data, box_data, found, scratch(decode_workspace(spec)), *pool());
  }
  const py::ssize_t count = found.size();
  FloatArray boxes({count, py::ssize_t(9)}), scores(count);
  py::array_t<std::int32_t> labels(count);
  for (py::ssize_t i = 0; i < count; ++i) {
    const Detection& d = found[i];
    const float row[9] = {d.x, d.y, d.z, d.length, d.width, d.height, d.yaw, d.vx, d.vy};
    std::copy(row, row + 9, boxes.mutable_data(i, 0));
    scores.mutable_at(i) = d.score;
    labels.mutable_at(i) = d.label;
  }
  return py::make_tuple(boxes, scores, labels);
}

py::object indices(py::handle table,
                   const std::vector<std::int32_t>& values) {  // a read-only view that keeps the table alive
  py::array_t<std::int32_t> view(values.size(), values.data(), table);
  view.attr("setflags")(py::arg("write") = false);
  return view;
}

template <std::vector<std::int32_t> LiftTable::* member>
py::object column(py::handle self) {
  return indices(self, self.cast<const SizedTable&>().*member);
}

}  // namespace

void bind_ops(py::module_& m) {
  m.attr("MAX_INTENSITY") = kMaxIntensity;
  m.attr("MAX_VELOCITY") = kMaxVelocity;
  py::class_<ImageCrop>(m, "ImageCrop", "Input pixel u sits at raw pixel (u + 0.5 + left) / scale - 0.5.")
      .def(py::init(&make_crop), py::arg("scale") = 1.0, py::arg("left") = 0.0, py::arg("top") = 0.0)
      .def_readonly("scale", &ImageCrop::scale)
      .def_readonly("left", &ImageCrop::left)
      .def_readonly("top", &ImageCrop::top)
      .def("__repr__", [](const ImageCrop& c) {
        return "ImageCrop(scale=" + std::to_string(c.scale) + ", left=" + std::to_string(c.left) +
               ", top=" + std::to_string(c.top) + ")";
      });
  py::class_<SizedTable>(m, "LiftTable",
                         "Frustum points sorted by BEV cell, then by camera, depth bin, row, column; int32 arrays.")
      .def_property_readonly("cells", &column<&LiftTable::cells>, "(K,) row * width + column, strictly rising")
      .def_property_readonly("starts", &column<&LiftTable::starts>, "(K + 1,) interval of each cell in points")
      .def_property_readonly("points", &column<&LiftTable::points>, "(P,) index into depth (N, D, h, w)")
      .def_property_readonly("pixels", &column<&LiftTable::pixels>, "(P,) index into (N, h, w)");
  py::class_<RadarStats>(m, "RadarStats", "How many points were used and why others were not.")
      .def_readonly("used", &RadarStats::used)
      .def_readonly("invalid", &RadarStats::invalid)
      .def_readonly("outside", &RadarStats::outside)
      .def_readonly("overflow", &RadarStats::overflow);
  py::class_<EgoSpeed>(m, "EgoSpeed",
                       "Forward speed m/s, median |residual| m/s of the inliers, and whether to trust it.")
      .def_readonly("valid", &EgoSpeed::valid)
      .def_readonly("speed", &EgoSpeed::speed)
      .def_readonly("residual", &EgoSpeed::residual)
      .def_readonly("inliers", &EgoSpeed::inliers);

  m.def("image_crop", &checked_image_crop, py::arg("spec"), py::arg("width"), py::arg("height"),
        R"(The smallest uniform scale at which a raw image covers the network's input, centred in x, anchored in y.

Args: spec: ImageSpec; width, height: px of the raw image. Raises: Error E0104, E0202.)");
  m.def(
      "preprocess_images", &py_preprocess_images, py::arg("images"), py::arg("crops"), py::arg("image_spec"),
      R"(Bilinear resize, crop and normalisation in one pass; pixel centres at half integers, edge pixels repeated outside.

Args: images: list of (H, W, 3) uint8 RGB with any strides, or None for an absent camera (gives zeros); crops: list of ImageCrop;
image_spec: ImageSpec. Returns: (N, 3, H, W) float32. Raises: Error E0104, E0201, E0202, E0204.)");
  m.def(
      "quantize_images", &py_quantize_images, py::arg("images"), py::arg("crops"), py::arg("image_spec"),
      py::arg("scale"),
      R"(preprocess_images in steps of scale, rounded half to even and kept within -128..127: what QuantizeLinear makes of its result.

Args: images, crops, image_spec: as in preprocess_images; scale: of a step. Returns: (N, 3, H, W) int8. Raises: Error E0104, E0201, E0202,
E0204. Source: QuantizeLinear of ONNX, opset 13, zero point 0.)");
  m.def("lift_table", &py_lift_table, py::arg("spec"), py::arg("rig"), py::arg("crops") = py::none(),
        R"(Which frustum points fall into which BEV cell, from the calibration.

Args: spec: ModelSpec; rig: SensorRig with spec.cameras cameras; crops: one ImageCrop per camera, default image_crop of each.
Returns: LiftTable. Raises: Error E0104, E0204, E021x.
Source: Philion and Fidler, Lift, Splat, Shoot, ECCV 2020; distortion models of Brown-Conrady and Kannala-Brandt.)");
  m.def("lift", &py_lift, py::arg("spec"), py::arg("table"), py::arg("depth"), py::arg("context"),
        R"(Sum over each cell's frustum points of depth * context; the last channel sums depth alone.

Args: depth: (N, D, h, w) float32 probabilities; context: (N, C, h, w) float32. Returns: (C + 1, H, W) float32.
Raises: Error E0104, E0201, E0202.)");
  m.def("voxelize_radar", &py_voxelize_radar, py::arg("spec"), py::arg("rig"), py::arg("sweeps"),
        py::arg("timestamp_ns"), py::arg("ego") = py::none(),
        R"(Dense grid of the statistics named in spec.radar.features over all sweeps, in the ego frame at timestamp_ns.

Args: sweeps: list of RadarSweep, or dict name -> (N, 5) float32 of x, y, z m, intensity dB, radial velocity m/s; timestamp_ns: int;
ego: Ego or None. A point that is not finite, or beyond MAX_INTENSITY dB or MAX_VELOCITY m/s, is invalid and dropped.
Returns: ((F, Hr, Wr) float32, RadarStats). Raises: Error E0104, E0201-E0205, E021x.)");
  m.def("estimate_ego_speed", &py_estimate_ego_speed, py::arg("rig"), py::arg("sweeps"),
        R"(Forward speed that best explains raw or aliased radial velocities as returns of a static world.

Args: rig: SensorRig; sweeps: as in voxelize_radar. Returns: EgoSpeed. Raises: Error E0201-E0205, E021x.
Source: the relation of Kellner et al., Instantaneous ego-motion estimation using Doppler radar, ITSC 2013, searched over one speed.)");
  m.def(
      "warp_bev", &py_warp_bev, py::arg("grid"), py::arg("features"), py::arg("T_then_now"),
      R"(A BEV map of an earlier ego frame, seen from the present one: bilinear at places rounded to 1/1024 cell, zero outside the map.

Args: grid: GridSpec; features: (C, H, W) float32; T_then_now: (4, 4) float64 rigid, present ego frame to the earlier one, of which the
planar part is used. Returns: (C, H, W) float32. Raises: Error E0104, E0201, E0202, E0214, E0215.
Source: the aligned BEV features of Huang and Huang, BEVDet4D, 2022.)");
  m.def("decode", &py_decode, py::arg("spec"), py::arg("heatmap"), py::arg("box"),
        R"(Peaks of the heatmaps, their boxes, and circle suppression within a class.

Args: heatmap: (K, H, W) float32 logits; box: (groups * 10, H, W) float32. Returns: boxes (M, 9) float32 x, y, z, length, width, height m,
yaw rad, vx, vy m/s; scores (M,) float32; labels (M,) int32; by score, then class and cell. Raises: Error E0104, E0201, E0202.
Source: Yin et al., Center-based 3D object detection and tracking, CVPR 2021.)");
  m.def("cell_index", &cell_index, py::arg("value"), py::arg("min"), py::arg("cell"), py::arg("count"),
        "floor((value - min) / cell) in float32; -1 for NaN and outside [0, count).");
  m.def("set_threads", &set_threads, py::arg("threads"), py::call_guard<py::gil_scoped_release>(),
        "Threads of the ops called from Python; 0: one per core. No result depends on it. Raises Error E0511.");
}
