// The ops of the radars and of BEV maps on NumPy arrays: every input is checked, the GIL is released during the op.
#include "fields.hpp"
#include "imkd/ops.hpp"
#include "ops_common.hpp"

using namespace imkd;
using namespace imkd::python;

namespace {

Vec3 plane(py::handle object) {
  Vec3 plane{};
  from_python(object, plane, Code::rig_bad_value, "ground_plane");
  return plane;
}

std::pair<FloatArray, RadarStats> py_voxelize_radar(const ModelSpec& spec, const SensorRig& sensors, py::handle sweeps,
                                                    py::handle timestamp_ns, py::handle ego, const EgoMotion* motion) {
  spec.check();
  const SensorRig rig = sensors.orthonormalised();
  FrameSet frames;
  frames.timestamp_ns = timestamp(timestamp_ns, "timestamp_ns");
  const Sweeps owners = read_motion(frames, rig, sweeps, ego);
  FloatArray out = empty({py::ssize_t(spec.radar.features.size()), spec.radar_height(), spec.radar_width()});
  float* data = out.mutable_data();
  RadarStats stats;
  {
    py::gil_scoped_release release;
    std::vector<RadarInput> inputs(frames.sweeps.size());
    Health health;
    const EgoMotion used = motion ? *motion : EgoMotion(rig, frames, spec.radar.max_age);
    const int count = resolve_sweeps(spec, rig, frames, used, inputs.data(), health);
    stats =
        voxelize_radar(spec, ground_of(spec, rig), inputs.data(), count, data, scratch(radar_workspace(spec)), *pool());
  }
  return {out, stats};
}

EgoSpeed py_estimate_ego_speed(const SensorRig& sensors, py::handle sweeps) {
  const SensorRig rig = sensors.orthonormalised();
  const Sweeps checked = radar_sweeps(sweeps, rig, 0);
  py::gil_scoped_release release;
  return estimate_ego_speed(rig, checked.views.data(), static_cast<int>(checked.views.size()));
}

FloatArray py_warp_bev(const GridSpec& grid, py::handle features, py::handle T_then_now, py::handle ground_plane) {
  grid.check();
  const Vec3 ground = plane(ground_plane);
  const FloatArray maps = float_array(features, {-1, grid.height(), grid.width()}, "features");
  const Mat4 T = rigid_transform(T_then_now, "T_then_now");
  FloatArray out = empty({maps.shape(0), maps.shape(1), maps.shape(2)});
  const float* data = maps.data();
  const int channels = static_cast<int>(maps.shape(0));
  float* warped = out.mutable_data();
  py::gil_scoped_release release;
  warp_bev(grid, ground, data, channels, T, warped, *pool());
  return out;
}

py::tuple py_decode(const ModelSpec& spec, py::handle heatmap, py::handle box, py::handle ground_plane) {
  spec.check();
  const Vec3 ground = plane(ground_plane);
  const py::ssize_t classes = spec.head.classes.size(), h = spec.grid.height(), w = spec.grid.width();
  const FloatArray heat = float_array(heatmap, {classes, h, w}, "heatmap");
  const FloatArray regression = float_array(box, {py::ssize_t(spec.head.groups()) * kBoxChannels, h, w}, "box");
  const float *heat_data = heat.data(), *box_data = regression.data();
  std::vector<Detection> detections;
  {
    py::gil_scoped_release release;
    decode(spec, ground, heat_data, box_data, detections, scratch(decode_workspace(spec)), *pool());
  }
  const py::ssize_t count = detections.size();
  FloatArray boxes({count, py::ssize_t(9)}), scores(count);
  py::array_t<std::int32_t> labels(count);
  for (py::ssize_t i = 0; i < count; ++i) {
    const Detection& d = detections[i];
    const float row[9] = {d.x, d.y, d.z, d.length, d.width, d.height, d.yaw, d.vx, d.vy};
    std::copy(row, row + 9, boxes.mutable_data(i, 0));
    scores.mutable_at(i) = d.score;
    labels.mutable_at(i) = d.label;
  }
  return py::make_tuple(boxes, scores, labels);
}

void bind_radar(py::module_& m) {
  m.def(
      "ground_of", [](const ModelSpec& spec, const SensorRig& rig) { return to_python(ground_of(spec, rig)); },
      py::arg("spec"), py::arg("rig"),
      "The ground plane (a, b, c) of a rig, z = a x + b y + c in its ego frame, m: its own, else the spec's "
      "legacy_plane.");
  m.attr("MAX_INTENSITY") = kMaxIntensity;
  m.attr("MAX_VELOCITY") = kMaxVelocity;
  m.attr("MIN_RANGE") = kMinRange;
  py::class_<RadarStats>(m, "RadarStats", "Numbers of points: used, and discarded by reason.")
      .def_readonly("used", &RadarStats::used)
      .def_readonly("invalid", &RadarStats::invalid)
      .def_readonly("outside", &RadarStats::outside)
      .def_readonly("overflow", &RadarStats::overflow);
  py::class_<EgoSpeed>(m, "EgoSpeed",
                       "Forward speed m/s, median |residual| m/s of the inliers, and whether the estimate is valid.")
      .def_readonly("valid", &EgoSpeed::valid)
      .def_readonly("speed", &EgoSpeed::speed)
      .def_readonly("residual", &EgoSpeed::residual)
      .def_readonly("inliers", &EgoSpeed::inliers);

  m.def("voxelize_radar", &py_voxelize_radar, py::arg("spec"), py::arg("rig"), py::arg("sweeps"),
        py::arg("timestamp_ns"), py::arg("ego") = py::none(), py::arg("motion") = py::none(),
        R"(Dense grid of the statistics of spec.radar.features over all sweeps, in the ego frame at timestamp_ns.

A point that is not finite, nearer than MIN_RANGE m, or beyond MAX_INTENSITY dB or MAX_VELOCITY m/s, is invalid and
discarded.

Args:
    spec: ModelSpec.
    rig: SensorRig.
    sweeps: list of RadarSweep, or dict name -> (N, 5) float32 of x, y, z m, intensity dB, radial velocity m/s.
    timestamp_ns: int, the reference time.
    ego: Ego or None.
    motion: EgoMotion of the frame; by default it is made of sweeps and ego.

Returns:
    ((F, Hr, Wr) float32, RadarStats).

Raises:
    Error: E0104, E0201-E0205, E021x.)");
  m.def("estimate_ego_speed", &py_estimate_ego_speed, py::arg("rig"), py::arg("sweeps"),
        R"(The forward speed at which most raw or aliased radial velocities are those of static targets.

Args:
    rig: SensorRig.
    sweeps: as in voxelize_radar.

Returns:
    EgoSpeed.

Raises:
    Error: E0201-E0205, E021x.

Source: the relation of Kellner et al., Instantaneous ego-motion estimation using Doppler radar, ITSC 2013, searched
over one speed.)");
}

void bind_bev(py::module_& m) {
  m.def("warp_bev", &py_warp_bev, py::arg("grid"), py::arg("features"), py::arg("T_then_now"),
        py::arg("ground_plane") = Vec3{},
        R"(Resamples a BEV map of an earlier ego frame in the present one, bilinearly.

Source coordinates are rounded to 1/1024 cell; cells outside the map are zero.

Args:
    grid: GridSpec.
    features: (C, H, W) float32.
    T_then_now: (4, 4) float64 rigid, present ego frame to the earlier one.
    ground_plane: a, b, c of z = a x + b y + c in the present ego frame, m: of ground_of.

Returns:
    (C, H, W) float32.

Raises:
    Error: E0104, E0201, E0202, E0214, E0215.

Source: the aligned BEV features of Huang and Huang, BEVDet4D, 2022.)");
  m.def("decode", &py_decode, py::arg("spec"), py::arg("heatmap"), py::arg("box"), py::arg("ground_plane") = Vec3{},
        R"(Peaks of the heatmaps, and their boxes within their class's limits of size, without suppressed ones.

A better box suppresses those of its class within the class's radius, and, where both classes are exclusive, those of
another class whose centre lies in its footprint.

Args:
    spec: ModelSpec.
    heatmap: (K, H, W) float32 logits.
    box: (groups * BOX_CHANNELS, H, W) float32.
    ground_plane: a, b, c of z = a x + b y + c in the ego frame, m: of ground_of.

Returns:
    boxes (M, 9) float32 x, y, z, length, width, height m, yaw rad, vx, vy m/s; scores (M,) float32; labels (M,) int32;
    by descending score, then class and cell.

Raises:
    Error: E0104, E0201, E0202.

Source: Yin et al., Center-based 3D object detection and tracking, CVPR 2021.)");
}

}  // namespace

void bind_bev_ops(py::module_& m) {
  bind_radar(m);
  bind_bev(m);
}
