// Numbers in messages: with a decimal point, whatever the caller's locale.
#pragma once
#include <charconv>
#include <string>

namespace imkd {

// As printf's "%.{digits}g" in the locale "C". Up to 6 digits the text fits into a string's own memory: no allocation.
inline std::string number_text(double value, int digits) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value, std::chars_format::general, digits).ptr};
}

}  // namespace imkd
