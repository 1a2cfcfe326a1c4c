// Bundle: the checked folder, wrapped by imkd_edge.bundle.
#include "imkd/bundle.hpp"

#include "common.hpp"

namespace py = pybind11;
using imkd::Bundle;

void bind_bundle(py::module_& m) {
  py::class_<Bundle>(m, "Bundle", "A bundle folder whose every byte has been checked.")
      .def_static("load", &Bundle::load, py::arg("path"), py::call_guard<py::gil_scoped_release>())
      .def("file", &Bundle::file, py::arg("name"))
      .def_readonly("path", &Bundle::path)
      .def_readonly("spec", &Bundle::spec)
      .def_readonly("contract", &Bundle::contract)
      .def_readonly("manifest", &Bundle::manifest)
      .def_property_readonly_static("kVersion", [](const py::object&) { return Bundle::kVersion; });
}
