// What every handle of the C ABI shares: its turn and error text, exceptions into numbers, structs of older and newer
// callers.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <string>

#include "imkd/error.hpp"
#include "imkd/frames.hpp"
#include "imkd/imkd.h"
#include "imkd/rig.hpp"

namespace imkd::c {

struct Handle {
  mutable std::atomic<bool> busy{false};  // a call that takes turns is under way
  mutable std::mutex error_mutex;
  mutable std::string error;
};

[[noreturn]] inline void refuse(const std::string& what, const std::string& where, const std::string& fix) {
  throw Error(Code::abi_mismatch, what, where, fix);
}

inline void keep(const Handle& handle, const char* text) noexcept {
  try {
    const std::lock_guard<std::mutex> lock(handle.error_mutex);
    handle.error = text;
  } catch (...) {  // NOLINT: no memory even for the text; the number still tells
  }
}

inline const char* error_of(const Handle* handle) noexcept try {
  if (!handle) return "the handle is NULL";
  static thread_local std::string text;
  const std::lock_guard<std::mutex> lock(handle->error_mutex);
  text = handle->error;
  return text.c_str();
} catch (...) {
  return "no memory for the text";
}

// Runs the body; no exception leaves it.
template <class Given, class Body>
int attempt(Given* handle, Body&& body) noexcept {
  if (!handle) return IMKD_UNEXPECTED;
  try {
    body(*handle);
    return IMKD_OK;
  } catch (const Error& error) {
    keep(*handle, error.what());
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    keep(*handle, error.what());
  } catch (...) {
    keep(*handle, "an exception of no known type");
  }
  return IMKD_UNEXPECTED;
}

class Turn {
 public:
  explicit Turn(const Handle& handle) : busy_(handle.busy) {
    if (busy_.exchange(true, std::memory_order_acquire))
      throw Error(Code::detector_busy, "another thread's call is under way", "the handle",
                  "give each thread a handle of its own");
  }
  ~Turn() { busy_.store(false, std::memory_order_release); }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  std::atomic<bool>& busy_;
};

// As the one such call under way.
template <class Given, class Body>
int in_turn(Given* handle, Body&& body) noexcept {
  return attempt(handle, [&](Given& given) {
    const Turn turn(given);
    body(given);
  });
}

// Sizes of the version that brought a struct, the least that a caller can have; they stay when fields are added.
template <class Struct>
constexpr std::size_t kOldest = sizeof(Struct);
template <>
constexpr std::size_t kOldest<imkd_options> = offsetof(imkd_options, debug);
template <>
constexpr std::size_t kOldest<imkd_result> = offsetof(imkd_result, debug);

// A struct as this library knows it: what an older caller lacks is 0; what a newer caller has besides must be 0.
template <class Struct>
Struct read(const Struct* given, const char* where) {
  if (!given) refuse("is NULL", where, "give the address of one");
  const std::size_t size = given->struct_size;
  if (size < kOldest<Struct> || size > 65536)
    refuse("a struct_size of " + std::to_string(size), where,
           "set it to sizeof; this library's is " + std::to_string(sizeof(Struct)));
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  for (std::size_t i = sizeof(Struct); i < size; ++i)
    if (bytes[i]) refuse("a field that this library does not know is set", where, "use a newer library");
  Struct known{};
  std::memcpy(&known, given, std::min(size, sizeof known));
  return known;
}

template <class Struct>
void check_room(const Struct* out, const char* where) {
  if (!out || out->struct_size < kOldest<Struct>)
    refuse(out ? "a struct_size of " + std::to_string(out->struct_size) : "is NULL", where, "set it to sizeof");
}

// As much as the caller has room for.
template <class Struct>
void fill(Struct all, Struct* out) {
  all.struct_size = out->struct_size;
  std::memcpy(out, &all, std::min<std::size_t>(out->struct_size, sizeof all));
}

inline void check_reserved(std::uint32_t value, const char* where) {  // or it could never get a meaning
  if (value) refuse("is not 0", where, "set the whole struct to 0 first");
}

ImageView view(const imkd_image& image);
SensorRig rig_of(const char* text);  // a path, or JSON where it begins with "{"

}  // namespace imkd::c
