// Text from Python as std::string. Half a surrogate pair, which UTF-8 cannot hold, becomes its escape "\ud800": the
// text is then refused, or used, like any other, where pybind11 would raise a TypeError that prints every argument.
#pragma once
#include <pybind11/cast.h>

#include <string>

namespace pybind11::detail {

template <>
struct type_caster<std::string> : string_caster<std::string> {
  bool load(handle source, bool convert) {
    if (string_caster<std::string>::load(source, convert)) return true;
    if (!source || !PyUnicode_Check(source.ptr())) return false;
    const auto bytes = reinterpret_steal<object>(PyUnicode_AsEncodedString(source.ptr(), "utf-8", "backslashreplace"));
    if (bytes) return string_caster<std::string>::load(bytes, convert);
    PyErr_Clear();
    return false;
  }
};

}  // namespace pybind11::detail
