#include "json_mutator.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace imkd::fuzz {
namespace {

using Json = nlohmann::json;
using Random = std::minstd_rand;

std::size_t below(Random& random, std::size_t count) { return count ? random() / 8 % count : 0; }

// Every value of the document.
void collect(Json& json, std::vector<Json*>& values) {
  values.push_back(&json);
  if (json.is_structured())
    for (Json& child : json) collect(child, values);
}

Json number(const Json& old, Random& random) {
  const double value = old.is_number() ? old.get<double>() : 1;
  const double far[] = {0,      -0., 1,          -1,          0.5,         1e-9, 1e-300,
                        5e-324, 1e9, 2147483647, 2147483648., 4294967296., 1e19, 1e308};
  switch (below(random, 8)) {
    case 0:
      return -value;
    case 1:
      return value * 2;
    case 2:
      return value / 3;
    case 3:
      return std::nextafter(value, 1e308);
    case 4:
      return std::isfinite(value) && std::abs(value) < 1e15 ? Json(std::int64_t(value) + 1) : Json(0);
    case 5:
      return std::isfinite(value) && std::abs(value) < 1e15 ? Json(std::int64_t(value) - 1) : Json(0);
    case 6:
      return std::numeric_limits<std::int64_t>::min() + std::int64_t(below(random, 3));
    default:
      return far[below(random, std::size(far))];
  }
}

std::string letters(const std::string& old, Random& random) {
  std::string text = old.substr(0, 64) + std::string(16, '\0');
  const std::size_t size = text.size() - 16;
  text.resize(LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(text.data()), size, text.size()));
  if (below(random, 8) == 0) text.clear();
  return text;
}

Json other_type(Random& random) {
  const Json kinds[] = {nullptr, true, 7, -1.5, "text", Json::array(), Json::object(), Json::array({1, 2, 3})};
  return kinds[below(random, std::size(kinds))];
}

void change_list(Json& list, Random& random) {
  const std::size_t at = below(random, list.size());
  switch (list.empty() ? 0 : below(random, 3)) {
    case 0:
      list.push_back(list.empty() ? other_type(random) : Json(list[at]));
      break;
    case 1:
      list.erase(at);
      break;
    default:
      std::swap(list[at], list[below(random, list.size())]);
  }
}

void change_object(Json& object, Random& random) {
  auto at = object.begin();
  std::advance(at, static_cast<std::ptrdiff_t>(below(random, object.size())));
  if (object.empty() || below(random, 4) == 0)
    object[letters(object.empty() ? "key" : at.key(), random)] = object.empty() ? other_type(random) : Json(*at);
  else if (below(random, 2))
    object.erase(at);
  else
    *at = other_type(random);
}

void change(Json& document, Random& random) {
  std::vector<Json*> values;
  collect(document, values);
  Json& chosen = *values[below(random, values.size())];
  const std::size_t kind = below(random, 10);
  if (kind == 0) {
    chosen = Json(*values[below(random, values.size())]);
  } else if (kind == 1) {
    chosen = other_type(random);
  } else if (chosen.is_object()) {
    change_object(chosen, random);
  } else if (chosen.is_array()) {
    change_list(chosen, random);
  } else if (chosen.is_string()) {
    chosen = letters(chosen.get<std::string>(), random);
  } else if (chosen.is_boolean()) {
    chosen = !chosen.get<bool>();
  } else {
    chosen = number(chosen, random);
  }
}

Json parsed(const std::uint8_t* data, std::size_t size) { return Json::parse(data, data + size, nullptr, false); }

std::size_t write(const Json& json, std::uint8_t* out, std::size_t max_size) {
  const std::string text = json.dump(-1, ' ', false, Json::error_handler_t::ignore);
  if (text.size() > max_size) return 0;
  std::memcpy(out, text.data(), text.size());
  return text.size();
}

}  // namespace

// One in eight mutations is of the bytes, for the parser.
std::size_t mutate_json(std::uint8_t* data, std::size_t size, std::size_t max_size, unsigned seed) {
  Random random(seed);
  Json document = parsed(data, size);
  if (document.is_discarded() || below(random, 8) == 0) return LLVMFuzzerMutate(data, size, max_size);
  for (std::size_t left = 1 + below(random, 4); left > 0; --left) change(document, random);
  const std::size_t written = write(document, data, max_size);
  return written ? written : LLVMFuzzerMutate(data, size, max_size);
}

// A value of b takes the place of one of a.
std::size_t cross_json(const std::uint8_t* a, std::size_t a_size, const std::uint8_t* b, std::size_t b_size,
                       std::uint8_t* out, std::size_t max_size, unsigned seed) {
  Random random(seed);
  Json document = parsed(a, a_size), other = parsed(b, b_size);
  if (document.is_discarded() || other.is_discarded()) return 0;
  std::vector<Json*> places, values;
  collect(document, places);
  collect(other, values);
  *places[below(random, places.size())] = Json(*values[below(random, values.size())]);
  return write(document, out, max_size);
}

}  // namespace imkd::fuzz
