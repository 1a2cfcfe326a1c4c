#include "json.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

namespace imkd::json {
namespace {

// Of nested lists and objects: JSON is written recursively, more levels could exhaust the stack.
constexpr int kMaxDepth = 64;

std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

std::string suggestion(const std::string& key, const std::vector<std::string>& known) {
  const auto nearer = [&](const auto& a, const auto& b) { return edit_distance(key, a) < edit_distance(key, b); };
  if (key.size() > 64 || known.empty()) return "remove it";
  const auto nearest = std::min_element(known.begin(), known.end(), nearer);
  return edit_distance(key, *nearest) <= 1 + key.size() / 3 ? "did you mean \"" + *nearest + "\"?" : "remove it";
}

std::string described(const Json& json) {
  return "is " + (json.is_number() ? json.dump() : "of type " + std::string(json.type_name()));
}

}  // namespace

Json parse(const std::string& text, const Codes& codes) {
  std::vector<std::set<std::string>> open;  // keys so far of each open object
  const auto on_event = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxDepth)
      throw Error(codes.syntax, "is nested deeper than " + std::to_string(kMaxDepth) + " levels", "",
                  "remove the nested lists or objects");
    if (event == Json::parse_event_t::object_start) open.emplace_back();
    if (event == Json::parse_event_t::object_end) open.pop_back();
    if (event == Json::parse_event_t::key && !open.back().insert(parsed.get<std::string>()).second)
      throw Error(codes.syntax, "the key \"" + parsed.get<std::string>() + "\" occurs twice in one object", "",
                  "remove one of them");
    return true;
  };
  try {
    Json json = Json::parse(text, on_event);
    if (!json.is_object()) throw Error(codes.syntax, "the document is not a JSON object", "", "write an object: {...}");
    return json;
  } catch (const Json::exception& e) {
    throw Error(codes.syntax, std::string("not JSON: ") + e.what(), "", "correct the text at that position");
  }
}

void check_keys(const Json& json, const std::vector<std::string>& known, const At& at,
                const std::vector<std::string>& optional) {
  if (!json.is_object()) at.bad("must be an object");
  for (const auto& [key, value] : json.items())
    if (std::find(known.begin(), known.end(), key) == known.end())
      throw Error(at.codes.unknown_key, "unknown key \"" + key + "\"", at.key(key).path, suggestion(key, known));
  for (const auto& key : known)
    if (!json.contains(key) && std::find(optional.begin(), optional.end(), key) == optional.end())
      throw Error(at.codes.missing_key, "the key \"" + key + "\" is missing", at.key(key).path, "add it");
}

std::string dump(const Json& json, const Codes& codes) {
  try {
    return json.dump(2) + "\n";
  } catch (const Json::exception& e) {
    throw Error(codes.bad_value, std::string("cannot be written as JSON: ") + e.what(), "", "write names in UTF-8");
  }
}

double shortest(float value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  double result = value;
  if (std::isfinite(value)) std::from_chars(text, end, result);
  return result;
}

void read(const Json& json, std::string& value, const At& at) {
  if (!json.is_string()) at.bad(described(json) + ", must be a string");
  value = json.get<std::string>();
}

void read(const Json& json, bool& value, const At& at) {
  if (!json.is_boolean()) at.bad(described(json) + ", must be true or false");
  value = json.get<bool>();
}

void read(const Json& json, int& value, const At& at) {
  if (!json.is_number_integer()) at.bad(described(json) + ", must be a whole number");
  const bool fits = json.is_number_unsigned()
                        ? json.get<std::uint64_t>() <= std::uint64_t(std::numeric_limits<int>::max())
                        : json.get<std::int64_t>() >= std::numeric_limits<int>::min();
  if (!fits) at.bad(json.dump() + " does not fit 32 bits", "from -2^31 to 2^31 - 1");
  value = json.get<int>();
}

void read(const Json& json, double& value, const At& at) {
  if (!json.is_number()) at.bad(described(json) + ", must be a number");
  value = json.get<double>();
}

void read(const Json& json, float& value, const At& at) {
  double wide = 0;
  read(json, wide, at);
  value = static_cast<float>(wide);
  if (!std::isfinite(value)) at.bad(json.dump() + " is too large for a 32-bit float", "at most 3.4e38");
}

}  // namespace imkd::json
