// What ends a callback or a frame of the node: an exception, which must not end the process.
#pragma once
#include <exception>
#include <string>

#include "imkd/error.hpp"

namespace imkd_ros {

// Calls body(). An exception goes to fail(text, device_failed): of the library, of a publisher, or out of memory.
// device_failed: the GPU is in an undefined state, no later frame can succeed.
template <class Body, class Fail>
void guarded(Body&& body, Fail&& fail) {
  try {
    body();
  } catch (const imkd::Error& error) {
    fail(std::string(error.what()), error.code() == imkd::Code::device_failed);
  } catch (const std::exception& error) {
    fail(std::string(error.what()), false);
  } catch (...) {
    fail(std::string("an exception of unknown type"), false);
  }
}

}  // namespace imkd_ros
