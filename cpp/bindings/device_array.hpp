// An array in the GPU's memory, of torch, CuPy, JAX or cuda-python: by the CUDA array interface (version 2 or 3) or by
// DLPack.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "common.hpp"

namespace imkd::python {

struct DeviceArray {
  void* data = nullptr;
  std::string type;                  // of NumPy: "|u1", "<f4", ...
  std::vector<py::ssize_t> shape;    // elements
  std::vector<py::ssize_t> strides;  // bytes
  py::object owner;                  // keeps the memory alive
};

// Nothing where the object is no such array. The data must be complete: the stream that writes it is not synchronised.
std::optional<DeviceArray> device_array(py::handle value, const std::string& where);

// A view of an image in host memory or, where on_cuda, in the GPU's memory, whose owner is then added to owners.
ImageView any_image(py::handle image, const std::string& where, bool on_cuda, std::vector<py::object>& owners);

}  // namespace imkd::python
