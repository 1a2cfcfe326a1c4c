// What the handles of the C ABI share: the lock against concurrent calls, the error text, exceptions as numbers, and
// structs of older and newer callers.
#pragma once
#include <algorithm>
#include <cstring>
#include <mutex>
#include <string>

#include "exclusive_call.hpp"
#include "imkd/error.hpp"
#include "imkd/frames.hpp"
#include "imkd/imkd.h"
#include "imkd/rig.hpp"
#include "imkd/spec.hpp"

namespace imkd::c {

struct Handle {
  mutable CallGate gate;
  mutable std::mutex error_mutex;
  mutable std::string error;
};

[[noreturn]] inline void refuse(const std::string& problem, const std::string& where, const std::string& fix) {
  throw Error(Code::abi_mismatch, problem, where, fix);
}

inline void set_error(const Handle& handle, const char* text) noexcept {
  if (!handle.gate.process.here()) return;  // the parent may have forked while it held the lock
  try {
    const std::lock_guard<std::mutex> lock(handle.error_mutex);
    handle.error = text;
  } catch (...) {  // NOLINT: out of memory for the text; the caller still gets the number
  }
}

// One text per thread and kind of handle: each _error function has its own.
template <class AnyHandle>
const char* error_of(const AnyHandle* handle) noexcept try {
  if (!handle) return "the handle is NULL; create one with its _new function";
  if (!handle->gate.process.here())
    return "error[E0507] the handle belongs to the process that forked this one / create another one in this process";
  static thread_local std::string text;
  const std::lock_guard<std::mutex> lock(handle->error_mutex);
  text = handle->error;
  return text.c_str();
} catch (...) {
  return "out of memory for the error text";
}

// Runs the body and returns its error number; no exception leaves it.
template <class AnyHandle, class Body>
int call(AnyHandle* handle, Body&& body) noexcept {
  if (!handle) return IMKD_UNEXPECTED;
  try {
    handle->gate.process.require("the handle");
    body(*handle);
    return IMKD_OK;
  } catch (const Error& error) {
    set_error(*handle, error.what());
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    set_error(*handle, error.what());
  } catch (...) {
    set_error(*handle, "an exception of unknown type");
  }
  return IMKD_UNEXPECTED;
}

// In a forked child the handle's memory is left as it is: what it holds belongs to the parent's threads and devices.
template <class AnyHandle>
void destroy(AnyHandle* handle) noexcept {
  if (handle && handle->gate.process.here()) delete handle;
}

// As call(), but error detector_busy while another exclusive call with the handle is in progress.
template <class AnyHandle, class Body>
int exclusive_call(AnyHandle* handle, Body&& body) noexcept {
  return call(handle, [&](AnyHandle& h) {
    const ExclusiveCall exclusive(h.gate, "the handle");
    body(h);
  });
}

// The size of a struct in the version that introduced it, hence the smallest that a caller can have. These stay as they
// are when fields are added.
template <class Struct>
constexpr std::size_t kMinSize = sizeof(Struct);
template <>
inline constexpr std::size_t kMinSize<imkd_options> = offsetof(imkd_options, debug);
template <>
inline constexpr std::size_t kMinSize<imkd_image> = offsetof(imkd_image, T_world_ego);
template <>
inline constexpr std::size_t kMinSize<imkd_result> = offsetof(imkd_result, debug);

// The struct as this library defines it. Fields that an older caller lacks are 0; fields that only a newer caller has
// must be 0.
template <class Struct>
Struct read(const Struct* input, const char* where) {
  if (!input) refuse("is NULL", where, "give the address of a struct");
  const std::size_t size = input->struct_size;
  if (size < kMinSize<Struct> || size > 65536 || size % alignof(Struct) != 0)  // the items of an array are aligned
    refuse("a struct_size of " + std::to_string(size) + ", allowed are multiples of " +
               std::to_string(alignof(Struct)) + " from " + std::to_string(kMinSize<Struct>) + " to 65536",
           where, "set it to sizeof, which is " + std::to_string(sizeof(Struct)) + " in this library");
  const auto* bytes = reinterpret_cast<const unsigned char*>(input);
  for (std::size_t i = sizeof(Struct); i < size; ++i)
    if (bytes[i])
      refuse("byte " + std::to_string(i) + " is not 0, in a field that this library does not know", where,
             "use a newer library, or set the field to 0");
  Struct output{};
  std::memcpy(&output, input, std::min(size, sizeof output));
  return output;
}

template <class Struct>
void check_output(const Struct* output, const char* where) {
  if (!output) refuse("is NULL", where, "give the address of a struct");
  if (output->struct_size < kMinSize<Struct>)
    refuse("a struct_size of " + std::to_string(output->struct_size) + ", allowed are " +
               std::to_string(kMinSize<Struct>) + " and more",
           where, "set it to sizeof, which is " + std::to_string(sizeof(Struct)) + " in this library");
}

// Writes as much as the caller's struct has space for.
template <class Struct>
void write(Struct values, Struct* output) {
  values.struct_size = output->struct_size;
  std::memcpy(output, &values, std::min<std::size_t>(output->struct_size, sizeof values));
}

// Reserved fields must be 0: a later version can then give them a meaning.
inline void check_reserved(std::uint32_t value, const char* where) {
  if (value) refuse("is " + std::to_string(value) + ", not 0", where, "set the whole struct to 0 before its fields");
}

ImageView image_view(const imkd_image& image);
SensorRig load_rig(const char* text);   // a path, or JSON if it begins with "{"
ModelSpec load_spec(const char* text);  // the same, of a folder NAME.imkd
// Unchecked: Synchronizer and Tracker refuse a matrix that is no pose as data.
Ego read_ego(const double* T_world_ego, const double* twist);

// 0 leaves the default.
template <class Number>
void set_unless_0(Number& option, Number value) {
  if (value != 0) option = value;
}

}  // namespace imkd::c
