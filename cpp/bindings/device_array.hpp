// An array in the GPU's memory, of torch, CuPy, JAX or cuda-python: by the CUDA array interface (version 2 or 3) or by
// DLPack.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common.hpp"

namespace imkd::python {

// Who reads an image.
struct ImageReader {
  bool on_cuda = false;
  void* stream = nullptr;               // the cudaStream_t that reads it; null: its contents are not read
  std::function<void(void*)> wait_for;  // makes that stream wait for the work in the producer's
};

struct DeviceArray {
  void* data = nullptr;
  std::string type;                  // of NumPy: "|u1", "<f4", ...
  std::vector<py::ssize_t> shape;    // elements
  std::vector<py::ssize_t> strides;  // bytes
  py::object owner;                  // keeps the memory alive
};

// Nothing where the object is no such array. The reader's stream waits for the producer's, as both protocols say.
std::optional<DeviceArray> device_array(py::handle value, const std::string& where, const ImageReader& reader);

// A view of an image in host memory or, for a reader on CUDA, in the GPU's memory, whose owner is then added to owners.
ImageView any_image(py::handle image, const std::string& where, const ImageReader& reader,
                    std::vector<py::object>& owners);

// The DLPack capsule of a dense tensor, read-only where a versioned capsule can say so. gpu: its number, or -1 for host
// memory. The owner is released by the reader.
py::capsule dlpack_capsule(std::uintptr_t address, const std::vector<std::int64_t>& shape, const std::string& dtype,
                           int gpu, py::object owner, bool versioned);

}  // namespace imkd::python
