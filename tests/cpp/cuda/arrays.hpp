// Where the arrays of ops_module.cpp lie: in the host's memory, as the kernels run on the CPU, or with IMKD_ON_DEVICE
// in the GPU's memory, copied there and back.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "../../../cpp/bindings/common.hpp"
#include "cuda_runtime/resources.hpp"
#include "traffic.hpp"

namespace arrays {

namespace py = pybind11;
constexpr unsigned char kFill = 0xA5;  // of memory that an op has to write before it reads it

#if defined(IMKD_ON_DEVICE)

inline void wait() { imkd::cuda::check(cudaStreamSynchronize(nullptr), "cudaStreamSynchronize"); }

inline void copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  if (bytes) imkd::cuda::check(cudaMemcpyAsync(to, from, bytes, kind, nullptr), "cudaMemcpyAsync");
  wait();
}

// Of the exact size, so that compute-sanitizer detects an overrun.
class Buffer {
 public:
  explicit Buffer(std::size_t bytes) : bytes_(bytes), memory_(imkd::cuda::device_memory<unsigned char>(bytes)) {}
  Buffer(const void* from, std::size_t bytes) : Buffer(bytes) { copy(get(), from, bytes, cudaMemcpyHostToDevice); }
  unsigned char* get() const { return memory_.get(); }
  void fill() {
    if (bytes_) imkd::cuda::check(cudaMemsetAsync(get(), kFill, bytes_, nullptr), "cudaMemsetAsync");
  }
  void read(void* to) const { copy(to, get(), bytes_, cudaMemcpyDeviceToHost); }

 private:
  std::size_t bytes_;
  std::shared_ptr<unsigned char> memory_;
};

// A workspace. IMKD_UNFILLED=1: not filled, for compute-sanitizer's initcheck.
class Memory {
 public:
  explicit Memory(std::size_t bytes) : buffer_(bytes) {
    if (std::getenv("IMKD_UNFILLED") == nullptr) buffer_.fill();
  }
  unsigned char* get() const { return buffer_.get(); }

 private:
  Buffer buffer_;
};

class Input {
 public:
  explicit Input(const py::array& array) : buffer_(array.data(), static_cast<std::size_t>(array.nbytes())) {}
  void* get() const { return buffer_.get(); }

 private:
  Buffer buffer_;
};

class Output {
 public:
  explicit Output(py::array array) : array_(std::move(array)), buffer_(static_cast<std::size_t>(array_.nbytes())) {
    buffer_.fill();
  }
  void* get() const { return buffer_.get(); }
  py::array read() {
    buffer_.read(array_.mutable_data());
    return array_;
  }

 private:
  py::array array_;
  Buffer buffer_;
};

// Structures that kernels read or write.
template <class T>
class List {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  explicit List(std::vector<T> values)
      : values_(std::move(values)), buffer_(values_.data(), values_.size() * sizeof(T)) {}
  T* get() const { return reinterpret_cast<T*>(buffer_.get()); }
  const std::vector<T>& read() {
    buffer_.read(values_.data());
    return values_;
  }

 private:
  std::vector<T> values_;
  Buffer buffer_;
};

// Copies the bytes from the first to the last pixel of a plane with any strides; returns the address of pixel 0.
template <class Keep>
const std::uint8_t* copy_plane(const std::uint8_t* data, const std::ptrdiff_t (&extent)[3],
                               const std::ptrdiff_t (&stride)[3], Keep& keep) {
  std::ptrdiff_t first = 0, last = 0;
  for (int i = 0; i < 3; ++i) {
    first += std::min<std::ptrdiff_t>(0, (extent[i] - 1) * stride[i]);
    last += std::max<std::ptrdiff_t>(0, (extent[i] - 1) * stride[i]);
  }
  keep.emplace_back(data + first, static_cast<std::size_t>(last - first + 1));
  return keep.back().get() - first;
}

class Images {
 public:
  void add(imkd::ImageView view, const py::handle&) {
    const std::ptrdiff_t height = view.height, width = view.width;
    if (view.data != nullptr && view.chroma != nullptr) {
      view.data = copy_plane(view.data, {height, width, 1}, {view.row_stride, 1, 0}, buffers_);
      view.chroma = copy_plane(view.chroma, {height / 2, width, 1}, {view.chroma_stride, 1, 0}, buffers_);
    } else if (view.data != nullptr) {
      view.data = copy_plane(view.data, {height, width, 3}, {view.row_stride, view.pixel_stride, view.channel_stride},
                             buffers_);
    }
    views.push_back(view);
  }
  std::vector<imkd::ImageView> views;

 private:
  std::vector<Buffer> buffers_;
};

#else

inline void wait() {}

// As of cudaMalloc: aligned and not cleared. Of the exact size, so that a sanitizer detects an overrun.
class Memory {
 public:
  explicit Memory(std::size_t bytes) : data_(new unsigned char[bytes + 256]) {
    std::size_t space = bytes + 256;
    void* at = data_.get();
    std::align(256, bytes, at, space);
    aligned_ = static_cast<unsigned char*>(at);
    std::memset(data_.get(), kFill, bytes + 256);
    traffic::watch(aligned_, bytes, traffic::kBetween);
  }
  unsigned char* get() const { return aligned_; }

 private:
  std::unique_ptr<unsigned char[]> data_;
  unsigned char* aligned_;
};

class Input {
 public:
  explicit Input(py::array array) : array_(std::move(array)) {
    traffic::watch(array_.data(), static_cast<std::size_t>(array_.nbytes()), traffic::kInput);
  }
  void* get() const { return const_cast<void*>(array_.data()); }

 private:
  py::array array_;
};

class Output {
 public:
  explicit Output(py::array array) : array_(std::move(array)) {
    std::memset(array_.mutable_data(), kFill, static_cast<std::size_t>(array_.nbytes()));
    traffic::watch(array_.data(), static_cast<std::size_t>(array_.nbytes()), traffic::kOutput);
  }
  void* get() { return array_.mutable_data(); }
  py::array read() { return array_; }

 private:
  py::array array_;
};

template <class T>
class List {
 public:
  explicit List(std::vector<T> values) : values_(std::move(values)) {}
  T* get() { return values_.data(); }
  const std::vector<T>& read() { return values_; }

 private:
  std::vector<T> values_;
};

class Images {
 public:
  void add(const imkd::ImageView& view, const py::handle& image) {
    if (py::isinstance<py::array>(image)) {
      const auto array = image.cast<py::array>();
      traffic::watch(array.data(), static_cast<std::size_t>(array.nbytes()), traffic::kInput);
    }
    views.push_back(view);
  }
  std::vector<imkd::ImageView> views;
};

#endif

}  // namespace arrays
