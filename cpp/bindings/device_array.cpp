#include "device_array.hpp"

#include <algorithm>
#include <memory>
#include <string_view>

#include "shape_text.hpp"

namespace imkd::python {
namespace {

// DLPack's C structures: in the capsule "dltensor", unchanged since version 0.2, and in "dltensor_versioned",
// since 1.0.
struct DLDataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};
struct DLTensor {
  void* data;
  std::int32_t device_type;
  std::int32_t device_id;
  std::int32_t ndim;
  DLDataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // elements; null: dense, row-major
  std::uint64_t byte_offset;
};
struct DLManagedTensor {
  DLTensor tensor;
  void* context;
  void (*deleter)(DLManagedTensor*);
};
struct DLManagedTensorVersioned {
  std::uint32_t major;  // another major version may differ in everything behind the deleter
  std::uint32_t minor;
  void* context;
  void (*deleter)(DLManagedTensorVersioned*);
  std::uint64_t flags;  // 1: read-only, 2: a copy; neither matters to a reader
  DLTensor tensor;
};
constexpr std::uint32_t kDLMajor = 1, kDLMinor = 1;  // that this file reads and writes
constexpr std::uint64_t kDLReadOnly = 1;
constexpr std::uint8_t kDLFloat = 2;
enum { kDLHost = 1, kDLCuda = 2, kDLCudaHost = 3, kDLCudaManaged = 13 };

// A tensor that is handed out: the structure of the capsule, and what it points to.
template <class Managed>
struct Exported {
  Managed managed{};
  std::vector<std::int64_t> shape, strides;
  py::object owner;
};

template <class Managed>
void release(Managed* managed) {  // by the reader, on any thread
  const py::gil_scoped_acquire gil;
  delete static_cast<Exported<Managed>*>(managed->context);
}

template <class Managed>
py::capsule capsule_of(std::unique_ptr<Exported<Managed>> exported, DLTensor tensor, const char* name) {
  tensor.ndim = static_cast<std::int32_t>(exported->shape.size());
  tensor.shape = exported->shape.data();
  tensor.strides = exported->strides.data();  // since version 1.2 never null
  exported->managed.tensor = tensor;
  exported->managed.context = exported.get();
  exported->managed.deleter = &release<Managed>;
  // Destroyed where nobody has taken the tensor: a reader renames the capsule.
  PyObject* capsule = PyCapsule_New(&exported->managed, name, [](PyObject* self) {
    const char* held = PyCapsule_GetName(self);
    if (!held || std::string_view(held).substr(0, 4) == "used") return;
    auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(self, held));
    managed->deleter(managed);
  });
  if (!capsule) throw py::error_already_set();
  exported.release();
  return py::reinterpret_steal<py::capsule>(capsule);
}

std::vector<py::ssize_t> dense_strides(const std::vector<py::ssize_t>& shape, py::ssize_t item) {
  std::vector<py::ssize_t> strides(shape.size(), item);
  for (std::size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * shape[i];
  return strides;
}

// The interface's stream, for the reader to wait for; null: nothing is to be waited for.
void* stream_of(const py::dict& interface, const std::string& where) {
  const py::object stream = interface.contains("stream") ? py::object(interface["stream"]) : py::none();
  if (stream.is_none()) return nullptr;
  const bool is_int = PyLong_Check(stream.ptr());
  const std::uintptr_t handle = is_int ? PyLong_AsSize_t(stream.ptr()) : 0;
  if (PyErr_Occurred()) PyErr_Clear();
  if (handle == 0 || handle == static_cast<std::uintptr_t>(-1))
    throw Error(Code::frame_bad_dtype,
                "has a __cuda_array_interface__ with the stream " + py::repr(stream).cast<std::string>(), where,
                "give None, 1 (the legacy default stream), 2 (the per-thread one) or a cudaStream_t");
  return reinterpret_cast<void*>(handle);
}

DeviceArray by_interface(py::handle value, const std::string& where, const ImageReader& reader) {
  try {
    const auto interface = value.attr("__cuda_array_interface__").cast<py::dict>();
    DeviceArray array;
    array.data = reinterpret_cast<void*>(interface["data"].cast<py::tuple>()[0].cast<std::uintptr_t>());
    array.type = interface["typestr"].cast<std::string>();
    array.shape = interface["shape"].cast<std::vector<py::ssize_t>>();
    const py::object strides = interface.contains("strides") ? py::object(interface["strides"]) : py::none();
    const py::ssize_t item = array.type.size() == 3 ? array.type[2] - '0' : 0;
    array.strides = strides.is_none() ? dense_strides(array.shape, item) : strides.cast<std::vector<py::ssize_t>>();
    array.owner = py::reinterpret_borrow<py::object>(value);
    if (interface.contains("mask") && !interface["mask"].is_none()) throw py::value_error("masked");
    if (array.strides.size() == array.shape.size()) {
      void* stream = stream_of(interface, where);
      if (stream && reader.wait_for) reader.wait_for(stream);
      return array;
    }
  } catch (const py::builtin_exception&) {
  } catch (const py::error_already_set&) {
  }
  throw Error(Code::frame_bad_dtype, "has a __cuda_array_interface__ that cannot be read", where,
              "pass it by DLPack, or as a NumPy array");
}

// Calls __dlpack__, which makes the reader's stream wait for the producer's; -1: nothing is read, so nothing waits.
py::object export_dlpack(py::handle value, int device_type, const ImageReader& reader) {
  py::dict arguments;
  if (device_type != kDLCudaHost)
    arguments["stream"] = reader.stream ? py::int_(reinterpret_cast<std::uintptr_t>(reader.stream)) : py::int_(-1);
  arguments["max_version"] = py::make_tuple(kDLMajor, kDLMinor);
  const py::object method = value.attr("__dlpack__");
  try {
    return method(**arguments);
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;
  }
  arguments.attr("pop")("max_version");  // a producer from before version 1.0
  return method(**arguments);
}

// Takes the capsule's tensor, whose owner the array then is.
template <class Managed>
DLTensor take(const py::object& capsule, const char* name, const char* used, DeviceArray& array) {
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule.ptr(), name));
  if (!managed) throw py::error_already_set();
  PyCapsule_SetName(capsule.ptr(), used);  // from here on this function owns the tensor
  array.owner = py::capsule(managed, [](void* p) {
    auto* owned = static_cast<Managed*>(p);
    if (owned->deleter) owned->deleter(owned);
  });
  if constexpr (std::is_same_v<Managed, DLManagedTensorVersioned>)
    if (managed->major != kDLMajor) return {};
  return managed->tensor;
}

DeviceArray by_dlpack(py::handle value, int device_type, const std::string& where, const ImageReader& reader) {
  const py::object capsule = export_dlpack(value, device_type, reader);
  DeviceArray array;
  const DLTensor tensor =
      PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned")
          ? take<DLManagedTensorVersioned>(capsule, "dltensor_versioned", "used_dltensor_versioned", array)
          : take<DLManagedTensor>(capsule, "dltensor", "used_dltensor", array);
  if (!tensor.device_type)
    throw Error(Code::frame_bad_dtype, "is a DLPack tensor of another major version", where,
                "give version " + std::to_string(kDLMajor) + ", or a __cuda_array_interface__");
  constexpr const char* kKinds = "iuf";  // by DLPack's code: int, unsigned, float
  if (tensor.dtype.code > 2 || tensor.dtype.lanes != 1 || tensor.dtype.bits % 8 != 0)
    throw Error(Code::frame_bad_dtype, "has a type without a NumPy equivalent", where, "must be uint8");
  const py::ssize_t item = tensor.dtype.bits / 8;
  array.type = std::string(item == 1 ? "|" : "<") + kKinds[tensor.dtype.code] + std::to_string(item);
  array.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  array.shape.assign(tensor.shape, tensor.shape + tensor.ndim);
  if (!tensor.strides) array.strides = dense_strides(array.shape, item);
  for (int i = 0; tensor.strides && i < tensor.ndim; ++i) array.strides.push_back(tensor.strides[i] * item);
  return array;
}

}  // namespace

py::capsule dlpack_capsule(std::uintptr_t address, const std::vector<std::int64_t>& shape, const std::string& dtype,
                           int gpu, py::object owner, bool versioned) {
  DLTensor tensor{};
  tensor.data = reinterpret_cast<void*>(address);
  tensor.device_type = gpu < 0 ? kDLHost : kDLCuda;
  tensor.device_id = std::max(gpu, 0);
  tensor.dtype = {kDLFloat, static_cast<std::uint8_t>(dtype == "float16" ? 16 : 32), 1};
  const auto fill = [&](auto exported) {
    exported->shape = shape;
    for (py::ssize_t stride : dense_strides({shape.begin(), shape.end()}, 1)) exported->strides.push_back(stride);
    exported->owner = std::move(owner);
    return exported;
  };
  if (!versioned) return capsule_of(fill(std::make_unique<Exported<DLManagedTensor>>()), tensor, "dltensor");
  auto exported = fill(std::make_unique<Exported<DLManagedTensorVersioned>>());
  exported->managed.major = kDLMajor;
  exported->managed.minor = kDLMinor;
  exported->managed.flags = kDLReadOnly;
  return capsule_of(std::move(exported), tensor, "dltensor_versioned");
}

std::optional<DeviceArray> device_array(py::handle value, const std::string& where, const ImageReader& reader) {
  if (py::isinstance<py::array>(value)) return std::nullopt;
  if (py::hasattr(value, "__cuda_array_interface__")) return by_interface(value, where, reader);
  if (!py::hasattr(value, "__dlpack__") || !py::hasattr(value, "__dlpack_device__")) return std::nullopt;
  const int type = value.attr("__dlpack_device__")().cast<py::tuple>()[0].cast<int>();
  if (type != kDLCuda && type != kDLCudaHost && type != kDLCudaManaged) return std::nullopt;
  return by_dlpack(value, type, where, reader);
}

ImageView any_image(py::handle image, const std::string& where, const ImageReader& reader,
                    std::vector<py::object>& owners) {
  const std::optional<DeviceArray> array = device_array(image, where, reader);
  if (!array) return image_view(image, where, 0);  // the core compares the size with the calibration's
  if (!reader.on_cuda)
    throw Error(Code::frame_bad_dtype, "is on the GPU, this detector runs on the CPU", where,
                "copy it to the host, or use device=\"cuda\"");
  if (array->type != "|u1")
    throw Error(Code::frame_bad_dtype, "is " + array->type + ", must be uint8", where, "grey levels 0..255, RGB");
  bool fits = array->data && array->shape.size() == 3 && array->shape[2] == 3;
  for (py::ssize_t extent : array->shape) fits = fits && extent >= 1 && extent <= 65536;
  if (!fits)
    throw Error(Code::frame_bad_shape, "has shape " + shape_text(array->shape) + (array->data ? "" : " and no memory"),
                where, "must be (height, width, 3)");
  owners.push_back(array->owner);
  return {static_cast<const std::uint8_t*>(array->data),
          static_cast<int>(array->shape[1]),
          static_cast<int>(array->shape[0]),
          array->strides[0],
          array->strides[1],
          array->strides[2]};
}

}  // namespace imkd::python
