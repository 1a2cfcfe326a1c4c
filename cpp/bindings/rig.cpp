// SensorRig and its calibrations.
#include "imkd/rig.hpp"

#include "fields.hpp"
#include "imkd/coverage.hpp"

using namespace imkd;
using namespace imkd::python;

namespace {

// A side beyond int32, such as a damaged recording has, is refused as any other is that is too long.
int side_of(std::int64_t px, const char* name) {
  if (px != static_cast<int>(px))
    throw Error(Code::rig_bad_value, std::to_string(px) + " px is out of range", name, "the size of the raw image");
  return static_cast<int>(px);
}

CameraCalibration make_camera(const std::string& name, std::int64_t width, std::int64_t height, py::handle K,
                              py::handle T_ego_camera, const std::string& distortion,
                              const std::vector<double>& coefficients) {
  CameraCalibration camera;
  camera.name = name;
  camera.width = side_of(width, "width");
  camera.height = side_of(height, "height");
  from_python(K, camera.K, Code::rig_bad_value, "K");
  from_python(T_ego_camera, camera.T_ego_camera, Code::rig_bad_value, "T_ego_camera");
  camera.distortion = enum_value<Distortion>(distortion, Code::rig_bad_value, "distortion");
  camera.coefficients = coefficients;
  return camera;
}

RadarCalibration make_radar(const std::string& name, py::handle T_ego_radar, const std::string& velocity,
                            double period) {
  RadarCalibration radar;
  radar.name = name;
  from_python(T_ego_radar, radar.T_ego_radar, Code::rig_bad_value, "T_ego_radar");
  radar.velocity = enum_value<RadialVelocity>(velocity, Code::rig_bad_value, "velocity");
  radar.period = period;
  return radar;
}

SensorRig make_rig(const std::vector<CameraCalibration>& cameras, const std::vector<RadarCalibration>& radars,
                   py::handle ground_plane) {
  SensorRig rig{cameras, radars, {}};
  if (!ground_plane.is_none())
    from_python(ground_plane, rig.ground_plane.emplace(), Code::rig_bad_value, "ground_plane");
  return rig.orthonormalised();
}

std::vector<CameraCoverage> py_camera_coverage(const ModelSpec& spec, const SensorRig& rig) {
  spec.check();
  return camera_coverage(spec, rig.orthonormalised());
}

}  // namespace

void bind_rig(py::module_& m) {
  m.attr("RIGID_TOLERANCE") = kRigidTolerance;
  m.def(
      "orthonormalised", [](py::handle T, const std::string& where) { return to_python(rigid_transform(T, where)); },
      py::arg("T"), py::arg("where") = "T",
      R"(A transform with the nearest rotation in place of its own.

Args:
    T: (4, 4) float64, its rotation R off from orthonormal by at most RIGID_TOLERANCE, the largest entry of |R^T R - I|.
    where: names the transform in an error.

Returns:
    (4, 4) float64; to the bit as given where its rotation is exact to 1e-6.

Raises:
    Error: rig_not_rigid, which says by how much; rig_bad_value for a number that is not finite.)");
  bind_struct<CameraCalibration>(m, "CameraCalibration",
                                 "A camera: raw image size px, K px (pixel centres at integers), distortion, pose.",
                                 Code::rig_bad_value)
      .def(py::init(&make_camera), py::kw_only(), py::arg("name"), py::arg("width"), py::arg("height"), py::arg("K"),
           py::arg("T_ego_camera"), py::arg("distortion") = "none", py::arg("coefficients") = std::vector<double>{});
  bind_struct<RadarCalibration>(m, "RadarCalibration",
                                "A radar: pose, and whether its radial velocity is compensated, raw or aliased.",
                                Code::rig_bad_value)
      .def(py::init(&make_radar), py::kw_only(), py::arg("name"), py::arg("T_ego_radar"),
           py::arg("velocity") = "compensated", py::arg("period") = 0.0);
  bind_list<std::vector<CameraCalibration>>(m, "CameraCalibrations");
  bind_list<std::vector<RadarCalibration>>(m, "RadarCalibrations");
  bind_struct<SensorRig>(m, "SensorRig",
                         "The cameras and radars of a vehicle, their lenses and mounting, and the ground it stands on: "
                         "z = a x + b y + c in the ego frame, m; None: z = 0.",
                         Code::rig_bad_value)
      .def(py::init(&make_rig), py::kw_only(), py::arg("cameras") = std::vector<CameraCalibration>{},
           py::arg("radars") = std::vector<RadarCalibration>{}, py::arg("ground_plane") = py::none())
      .def("camera_index", &SensorRig::camera_index, py::arg("name"), "Index of a camera, -1 when absent.")
      .def("radar_index", &SensorRig::radar_index, py::arg("name"), "Index of a radar, -1 when absent.")
      .def("to_json", &SensorRig::to_json, "Canonical JSON.")
      .def_static("from_json", &SensorRig::from_json, py::arg("text"),
                  "Reads to_json's form strictly; raises Error E021x.")
      .def_static(
          "load",
          [](const py::object& path) {
            // As Python's own files: a name on the disk need not be UTF-8.
            const py::object bytes = py::module_::import("os").attr("fsencode")(path);
            return SensorRig::load(bytes.cast<std::string>());
          },
          py::arg("path"), "Reads a rig JSON file.")
      .def("check", &SensorRig::check)
      .def("hash", &SensorRig::hash, "16 hex digits that change with any calibration.")
      .def(py::pickle([](const SensorRig& rig) { return rig.to_json(); },
                      [](const std::string& text) { return SensorRig::from_json(text); }));

  py::class_<CameraCoverage>(m, "CameraCoverage", "What one camera sees of a model's grid.")
      .def_readonly("name", &CameraCoverage::name)
      .def_readonly("in_grid", &CameraCoverage::in_grid,
                    "Share of the feature pixels whose ray has a point in the grid.")
      .def_readonly("across", &CameraCoverage::across, "Share of those whose ray runs through 4 cells of it or more.")
      .def_readonly("hint", &CameraCoverage::hint, "The usual causes that the calibration shows; empty: none.")
      .def_property_readonly("usable", &CameraCoverage::usable, "False: health says \"unusable\".")
      .def("__repr__", [](const CameraCoverage& camera) { return to_text({camera}); });
  m.def("camera_coverage", &py_camera_coverage, py::arg("spec"), py::arg("rig"));
}
