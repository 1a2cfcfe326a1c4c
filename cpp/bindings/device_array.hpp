// An array that lies on the GPU, as torch, CuPy, JAX or cuda-python hand it out: by the CUDA array interface (version 2
// or 3) or by DLPack.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "common.hpp"

namespace imkd::python {

struct DeviceArray {
  void* data = nullptr;
  std::string type;                         // of NumPy: "|u1", "<f4", ...
  std::vector<py::ssize_t> shape, strides;  // elements; bytes
  py::object owner;                         // keeps the memory
};

// None where the object is no such array. The data must be ready: nobody waits for the stream that writes it.
std::optional<DeviceArray> device_array(py::handle value, const std::string& where);

// An image in the host's memory, or, where on_cuda, one that lies on the GPU already; `keep` then gets what holds its
// memory.
ImageView any_image(py::handle image, const std::string& where, bool on_cuda, std::vector<py::object>& keep);

}  // namespace imkd::python
