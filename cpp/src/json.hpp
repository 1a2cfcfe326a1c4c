// Strict JSON: no key unknown or missing, every value of its type; an error has its path in the document.
#pragma once
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "fields.hpp"

namespace imkd::json {

using Json = nlohmann::json;

struct Codes {
  Code syntax, unknown_key, missing_key, bad_value;
};
constexpr Codes kSpecCodes{Code::spec_syntax, Code::spec_unknown_key, Code::spec_missing_key, Code::spec_bad_value};
constexpr Codes kRigCodes{Code::rig_syntax, Code::rig_unknown_key, Code::rig_missing_key, Code::rig_bad_value};
constexpr Codes kBundleCodes{Code::bundle_manifest, Code::bundle_unknown_key, Code::bundle_missing_key,
                             Code::bundle_bad_value};

// The JSON path ("radar.features[3].scale") of the value being read, and the codes for its errors.
struct At {
  const Codes& codes;
  std::string path;
  At key(const std::string& name) const { return {codes, path.empty() ? name : path + "." + name}; }
  At item(std::size_t i) const { return {codes, path + "[" + std::to_string(i) + "]"}; }
  [[noreturn]] void bad(const std::string& what, const std::string& fix = {}) const {
    throw Error(codes.bad_value, what, path, fix);
  }
};

Json parse(const std::string& text, const Codes& codes);  // an object without duplicate keys, or Error syntax
// Throws Error for an unknown key, with the nearest known one as the fix, and for a missing key that is not optional.
void check_keys(const Json& json, const std::vector<std::string>& known, const At& at,
                const std::vector<std::string>& optional = {});
std::string dump(const Json& json, const Codes& codes);  // canonical: sorted keys, two spaces, final newline
double shortest(float value);  // the double whose shortest decimal form is the float's: 0.1f is written as 0.1

// ---- read(json, value, at) ----
void read(const Json& json, std::string& value, const At& at);
void read(const Json& json, bool& value, const At& at);
void read(const Json& json, int& value, const At& at);
void read(const Json& json, double& value, const At& at);
void read(const Json& json, float& value, const At& at);

template <class T>
std::enable_if_t<std::is_enum_v<T>> read(const Json& json, T& value, const At& at) {
  std::string name;
  read(json, name, at);
  value = enum_value<T>(name, at.codes.bad_value, at.path);
}

template <class T>
std::enable_if_t<std::is_class_v<T>> read(const Json& json, T& value, const At& at);

template <class T>
void read(const Json& json, std::vector<T>& value, const At& at) {
  if (!json.is_array()) at.bad("must be a list");
  value.assign(json.size(), T{});
  for (std::size_t i = 0; i < json.size(); ++i) read(json[i], value[i], at.item(i));
}

// 3 numbers are flat; 9 and 16 are rows of a matrix.
template <class T, std::size_t N>
void read(const Json& json, std::array<T, N>& value, const At& at) {
  constexpr std::size_t rows = N == 9 ? 3 : N == 16 ? 4 : 1, columns = N / rows;
  const std::string shape = rows == 1 ? "a list of " + std::to_string(N) + " numbers"
                                      : std::to_string(rows) + " rows of " + std::to_string(columns) + " numbers";
  if (!json.is_array() || json.size() != (rows == 1 ? columns : rows)) at.bad("must be " + shape);
  for (std::size_t r = 0; r < rows; ++r) {
    const Json& row = rows == 1 ? json : json[r];
    if (!row.is_array() || row.size() != columns) at.bad("must be " + shape);
    for (std::size_t c = 0; c < columns; ++c)
      read(row[c], value[r * columns + c], rows == 1 ? at.item(c) : at.item(r).item(c));
  }
}

template <class M>
struct is_optional : std::false_type {};
template <class M>
struct is_optional<std::optional<M>> : std::true_type {};

template <class T>
std::vector<std::string> field_names(bool optional_only = false) {
  std::vector<std::string> names;
  fields(static_cast<const T*>(nullptr), [&](const char* name, auto member) {
    using Member = std::remove_reference_t<decltype(std::declval<T>().*member)>;
    if (!optional_only || is_optional<Member>::value) names.emplace_back(name);
  });
  return names;
}

// A key that is missing leaves an optional member empty.
template <class M>
void read_member(const Json& json, const char* name, M& value, const At& at) {
  if constexpr (is_optional<M>::value) {
    value.reset();
    if (json.contains(name)) read(json[name], value.emplace(), at.key(name));
  } else {
    read(json[name], value, at.key(name));
  }
}

template <class T>
std::enable_if_t<std::is_class_v<T>> read(const Json& json, T& value, const At& at) {
  check_keys(json, field_names<T>(), at, field_names<T>(true));
  fields(static_cast<const T*>(nullptr),
         [&](const char* name, auto member) { read_member(json, name, value.*member, at); });
}

// ---- write(value) ----
inline Json write(const std::string& value) { return value; }
inline Json write(bool value) { return value; }
inline Json write(int value) { return value; }
inline Json write(double value) { return value; }
inline Json write(float value) { return shortest(value); }

template <class T>
std::enable_if_t<std::is_enum_v<T>, Json> write(const T& value) {
  return enum_name(value);
}

template <class T>
std::enable_if_t<std::is_class_v<T>, Json> write(const T& value);

template <class T>
Json write(const std::vector<T>& value) {
  Json json = Json::array();
  for (const T& item : value) json.push_back(write(item));
  return json;
}

template <class T, std::size_t N>
Json write(const std::array<T, N>& value) {
  constexpr std::size_t rows = N == 9 ? 3 : N == 16 ? 4 : 1, columns = N / rows;
  Json json = Json::array();
  for (std::size_t r = 0; r < rows; ++r) {
    Json row = Json::array();
    for (std::size_t c = 0; c < columns; ++c) row.push_back(write(value[r * columns + c]));
    if (rows == 1) return row;
    json.push_back(row);
  }
  return json;
}

template <class T>
std::enable_if_t<std::is_class_v<T>, Json> write(const T& value) {
  Json json = Json::object();
  fields(&value, [&](const char* name, auto member) {
    const auto& item = value.*member;
    if constexpr (!is_optional<std::decay_t<decltype(item)>>::value)
      json[name] = write(item);
    else if (item)
      json[name] = write(*item);
  });
  return json;
}

}  // namespace imkd::json
