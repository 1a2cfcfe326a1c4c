// Errors that Python code raised in a call from the core.
#pragma once
#include <pybind11/pybind11.h>

#include <string>

#include "imkd/error.hpp"

namespace imkd::python {

// The core may handle it; otherwise the original exception is raised.
struct PythonError : Error {
  pybind11::error_already_set raised;
  PythonError(Code code, const std::string& what, const std::string& where, const std::string& fix,
              const pybind11::error_already_set& raised)
      : Error(code, what, where, fix), raised(raised) {}
};

// Throws PythonError for an imkd_edge.errors.Error, and returns for any other exception. Needs the GIL.
inline void throw_if_error(const pybind11::error_already_set& raised) {
  namespace py = pybind11;
  if (!raised.matches(py::module_::import("imkd_edge._core").attr("Error"))) return;
  const auto attribute = [&](const char* name) { return py::str(raised.value().attr(name)).cast<std::string>(); };
  throw PythonError(static_cast<Code>(std::stoi(attribute("code").substr(1))), attribute("what"), attribute("where"),
                    attribute("fix"), raised);
}

}  // namespace imkd::python
