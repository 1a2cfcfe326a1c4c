// A shape as NumPy prints it: "(6, 80, 16, 44)", "(3,)"; an extent below 0 is free: "(N, 5)".
#pragma once
#include <string>
#include <vector>

namespace imkd {

template <class Extent>
std::string shape_text(const std::vector<Extent>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i)
    text += (i ? ", " : "") + (shape[i] < 0 ? std::string("N") : std::to_string(shape[i]));
  return text + (shape.size() == 1 ? ",)" : ")");
}

}  // namespace imkd
