// Bundle: the checked folder, wrapped by imkd_edge.bundle.
#include "imkd/bundle.hpp"

#include "common.hpp"
#include "crypto.hpp"

namespace py = pybind11;
using imkd::Bundle;
using imkd::Signature;

namespace {

// The name of a file, or the comment of a signature, need not be UTF-8.
py::str text(const std::string& bytes) {
  return py::reinterpret_steal<py::str>(
      PyUnicode_DecodeUTF8(bytes.data(), static_cast<py::ssize_t>(bytes.size()), "replace"));
}

}  // namespace

void bind_bundle(py::module_& m) {
  py::class_<Signature>(m, "Signature", "What a bundle's signature says; see imkd_edge.bundle.Signature.")
      .def_readonly("present", &Signature::present)
      .def_readonly("checked", &Signature::checked)
      .def_readonly("key_id", &Signature::key_id)
      .def_property_readonly("signer", [](const Signature& self) { return text(self.signer); })
      .def_property_readonly("comment", [](const Signature& self) { return text(self.comment); });
  py::class_<Bundle>(m, "Bundle", "A bundle folder whose every byte has been checked.")
      .def_static("load", &Bundle::load, py::arg("path"), py::arg("trust") = "",
                  py::call_guard<py::gil_scoped_release>())
      .def("file", &Bundle::file, py::arg("name"))
      .def(
          "read",
          [](const Bundle& self, const std::string& name) {
            std::string content;
            {
              py::gil_scoped_release release;
              content = self.read(name);
            }
            return py::bytes(content);
          },
          py::arg("name"))
      .def_readonly("path", &Bundle::path)
      .def_readonly("spec", &Bundle::spec)
      .def_readonly("contract", &Bundle::contract)
      .def_readonly("revision", &Bundle::revision)
      .def_readonly("signature", &Bundle::signature)
      .def_readonly("manifest", &Bundle::manifest)
      .def_property_readonly_static("kVersion", [](const py::object&) { return Bundle::kVersion; });
  m.def("crypto_library", &imkd::crypto_library,
        "The library that verifies signatures, \"OpenSSL 3.0.17 ...\"; raises Error missing_library without one.");
}
