// Binds a struct through its list of fields: attributes, keyword constructor, ==, repr, copy.
#pragma once
#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "common.hpp"
#include "json.hpp"

namespace imkd::python {

template <class T>
struct is_array : std::false_type {};
template <class T, std::size_t N>
struct is_array<std::array<T, N>> : std::true_type {};

// 9 and 16 numbers are read-only matrices (an assignment to one element would be lost), 3 are a tuple.
template <class T, std::size_t N>
py::object to_python(const std::array<T, N>& value) {
  if constexpr (N == 9 || N == 16) {
    constexpr py::ssize_t side = N == 9 ? 3 : 4;
    py::array_t<T> array({side, side}, value.data());
    array.attr("setflags")(py::arg("write") = false);
    return array;
  } else {
    py::tuple tuple(N);
    for (std::size_t i = 0; i < N; ++i)
      tuple[i] = std::is_same_v<T, float> ? json::shortest(float(value[i])) : double(value[i]);
    return tuple;
  }
}

template <class Value>
py::object value_or_none(const std::optional<Value>& value) {
  return value ? to_python(*value) : py::object(py::none());
}

template <class T, std::size_t N>
void from_python(py::handle object, std::array<T, N>& value, Code code, const char* name) {
  const auto array = py::array_t<T, py::array::c_style | py::array::forcecast>::ensure(object);
  if (!array) PyErr_Clear();
  constexpr py::ssize_t side = N == 9 ? 3 : 4;
  const bool fits =
      array && ((N == 9 || N == 16) ? array.ndim() == 2 && array.shape(0) == side && array.shape(1) == side
                                    : array.ndim() == 1 && array.shape(0) == static_cast<py::ssize_t>(N));
  if (!fits)
    throw Error(code, "has the wrong shape or type", name,
                N == 9    ? "must be (3, 3)"
                : N == 16 ? "must be (4, 4)"
                          : "must be 3 numbers");
  std::copy(array.data(), array.data() + N, value.begin());
}

// Assigns to a member. The old value lives on, as Python may have references to items of its lists: such items keep the
// member's Python object alive, and that object keeps the old value.
template <class M>
void replace(M& member, const M& value) {
  const py::object view = py::cast(&member, py::return_value_policy::reference);
  auto old = std::make_unique<M>(value);
  std::swap(member, *old);
  const py::capsule owner(old.release(), [](void* p) { delete static_cast<M*>(p); });
  py::detail::keep_alive_impl(view, owner);
}

template <class T, class M>
void bind_field(py::class_<T>& cls, const char* name, M T::* member, Code code) {
  if constexpr (std::is_enum_v<M>) {
    cls.def_property(
        name, [member](const T& o) { return enum_name(o.*member); },
        [member, code, name](T& o, const std::string& value) { o.*member = enum_value<M>(value, code, name); });
  } else if constexpr (is_array<M>::value) {
    cls.def_property(
        name, [member](const T& o) { return to_python(o.*member); },
        [member, code, name](T& o, py::handle value) { from_python(value, o.*member, code, name); });
  } else if constexpr (json::is_optional<M>::value) {
    cls.def_property(
        name, [member](const T& o) { return o.*member ? to_python(*(o.*member)) : py::object(py::none()); },
        [member, code, name](T& o, py::handle value) {
          M next;
          if (!value.is_none()) from_python(value, next.emplace(), code, name);
          o.*member = next;
        });
  } else if constexpr (std::is_same_v<M, float>) {
    cls.def_property(
        name, [member](const T& o) { return json::shortest(o.*member); },
        [member](T& o, float value) { o.*member = value; });
  } else if constexpr (std::is_same_v<M, std::vector<double>>) {
    cls.def_property(
        name, [member](const T& o) { return py::tuple(py::cast(o.*member)); },
        [member](T& o, const std::vector<double>& value) { o.*member = value; });
  } else if constexpr (std::is_class_v<M> && !std::is_same_v<M, std::string>) {
    cls.def_property(
        name, [member](T& o) -> M& { return o.*member; },
        [member](T& o, const M& value) { replace(o.*member, value); });
  } else {
    cls.def_readwrite(name, member);
  }
}

template <class T>
T from_keywords(const py::kwargs& keywords) {
  T value{};
  const py::object view = py::cast(&value, py::return_value_policy::reference);
  const auto names = json::field_names<T>();
  for (const auto& [name, argument] : keywords) {
    if (std::find(names.begin(), names.end(), name.template cast<std::string>()) == names.end())
      throw py::type_error("unexpected keyword argument " + py::repr(name).template cast<std::string>());
    view.attr(name) = argument;
  }
  return value;
}

// Field by field, which is faster than through JSON: a recording's rig is compared at every frame.
template <class T>
bool same(const T& a, const T& b);

template <class T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const T& x, const T& y) { return same(x, y); });
}

template <class T>
bool same(const T& a, const T& b) {
  if constexpr (std::is_class_v<T> && !is_array<T>::value && !json::is_optional<T>::value &&
                !std::is_same_v<T, std::string>) {
    bool all = true;
    fields(&a, [&](const char*, auto member) { all = all && same(a.*member, b.*member); });
    if constexpr (std::is_same_v<T, ModelSpec>) all = all && a.legacy_plane == b.legacy_plane;  // not a field
    return all;
  } else {
    return a == b;
  }
}

// Binds all but the constructor.
template <class T>
py::class_<T> bind_struct(py::module_& m, const char* name, const char* doc, Code code) {
  py::class_<T> cls(m, name, doc);
  fields(static_cast<const T*>(nullptr), [&](const char* field, auto member) { bind_field(cls, field, member, code); });
  cls.def("__eq__", [](const T& a, const T& b) { return same(a, b); }, py::is_operator());
  cls.def("__repr__", [name](const T& o) { return std::string(name) + json::write(o).dump(); });
  cls.def("__copy__", [](const T& o) { return T(o); });
  cls.def("__deepcopy__", [](const T& o, const py::dict&) { return T(o); }, py::arg("memo"));
  return cls;
}

// Items are changed in place. The list has a fixed length, as Python's references to items would dangle where it grew
// or shrank: assign another list.
template <class List>
void bind_list(py::module_& m, const char* name) {
  using Item = typename List::value_type;
  const auto at = [](List& list, py::ssize_t i) -> Item& {
    const auto size = static_cast<py::ssize_t>(list.size());
    if (i < -size || i >= size) throw py::index_error("item " + std::to_string(i) + " of " + std::to_string(size));
    return list[static_cast<std::size_t>(i < 0 ? i + size : i)];
  };
  py::class_<List>(m, name,
                   "A list of fixed length whose items are changed in place; for another length assign another list.")
      .def(py::init([](const py::iterable& items) {
        List list;
        for (py::handle item : items) list.push_back(item.cast<Item>());
        return list;
      }))
      .def("__len__", [](const List& list) { return list.size(); })
      .def("__getitem__", at, py::return_value_policy::reference_internal)
      .def("__setitem__", [at](List& list, py::ssize_t i, const Item& item) { at(list, i) = item; })
      .def("__iter__",
           [](const py::object& self) { return py::reinterpret_steal<py::object>(PySeqIter_New(self.ptr())); });
  py::implicitly_convertible<py::list, List>();
  py::implicitly_convertible<py::tuple, List>();
}

}  // namespace imkd::python
