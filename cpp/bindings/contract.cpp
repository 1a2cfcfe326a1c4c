// Contract: what a bundle was trained on; imkd_edge.bundle.contract has its fields as dataclasses.
#include "imkd/contract.hpp"

#include "common.hpp"
#include "imkd/ops.hpp"
#include "rig_warnings.hpp"

using namespace imkd;
using namespace imkd::python;

namespace {

std::vector<py::tuple> py_rig_warnings(const ModelSpec& spec, const SensorRig& rig,
                                       const std::optional<Contract>& contract) {
  spec.check();
  const SensorRig checked = rig.orthonormalised();
  std::vector<py::tuple> out;
  for (const Warning& warning : rig_warnings(spec, checked, contract, camera_coverage(spec, checked)))
    out.push_back(warning_tuple(warning));
  return out;
}

}  // namespace

void bind_contract(py::module_& m) {
  py::class_<Contract>(m, "Contract", "What a bundle was trained on; see imkd_edge.bundle.contract.")
      .def_static("from_json", &Contract::from_json, py::arg("text"),
                  "Reads to_json's form strictly; raises Error E0402, E0403, E0404, E0410.")
      .def("to_json", &Contract::to_json, "Canonical JSON.")
      .def("check", py::overload_cast<const ModelSpec&>(&Contract::check, py::const_), py::arg("spec"),
           "Raises Error E0410 where the classes are not the spec's.");
  m.def("rig_warnings", &py_rig_warnings, py::arg("spec"), py::arg("rig"), py::arg("contract") = py::none(),
        "(code, text) of everything in which a rig is unlike a contract, by code.");
  m.def("horizontal_view", &horizontal_view, py::arg("camera"), "Horizontal field of view of the raw image, degrees.");
  m.def(
      "mounting_height",
      [](py::handle T, const Vec3& ground) { return mounting_height(rigid_transform(T, "T_ego_sensor"), ground); },
      py::arg("T_ego_sensor"), py::arg("ground"), "Height of a sensor above the ground plane (a, b, c), m.");
}
