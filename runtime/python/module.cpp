// The Python module _ggml_delegate._runtime: programs, in terms of buffers. It links no PyTorch;
// orchestrator/native.py turns tensors into buffers and back.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstddef>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "runtime/ggml/processor.h"
#include "runtime/program/backends.h"
#include "runtime/program/program.h"
#include "runtime/python/conversions.h"
#include "runtime/python/exceptions.h"

namespace py = pybind11;

namespace orchestrator {
namespace {

// The bytes of a read-only buffer stay where they are; those of a writable one could change after
// they were verified, so they are copied.
std::unique_ptr<Program> load_bytes(const py::buffer& source, const LoadOptions& options) {
  const py::buffer_info info = source.request();
  if (info.ndim != 1 || info.itemsize != 1 || (info.size > 1 && info.strides[0] != 1)) {
    throw py::value_error("a program must be one contiguous block of bytes");
  }
  const auto size = static_cast<size_t>(info.size);
  std::shared_ptr<const void> owner;
  const void* data = info.ptr;
  if (info.readonly) {
    owner = keep_alive(source);
  } else {
    auto copy = std::make_shared<AlignedBuffer>(size);
    std::copy_n(static_cast<const std::byte*>(data), size, copy->data());
    data = copy->data();
    owner = std::move(copy);
  }
  const py::gil_scoped_release release;
  return Program::from_bytes(std::move(owner), data, size, options);
}

std::variant<bool, int, std::string> option_value(const std::string& name, py::handle value) {
  if (py::isinstance<py::bool_>(value)) {
    return value.cast<bool>();
  }
  if (py::isinstance<py::str>(value)) {
    return value.cast<std::string>();
  }
  if (py::isinstance<py::int_>(value)) {
    const auto number = value.cast<int64_t>();
    if (number < std::numeric_limits<int>::min() || number > std::numeric_limits<int>::max()) {
      throw py::value_error(name + ": " + std::to_string(number) + " does not fit 32 bits");
    }
    return static_cast<int>(number);
  }
  throw py::type_error(name + " is a " + py::str(py::type::of(value)).cast<std::string>() +
                       ", expected a bool, an int or a str");
}

// From {backend id: {name: value}}.
std::vector<DelegateOption> delegate_options(const py::dict& by_backend) {
  std::vector<DelegateOption> result;
  for (const auto& [backend, options] : by_backend) {
    for (const auto& [key, value] : options.cast<py::dict>()) {
      DelegateOption option{backend.cast<std::string>(), key.cast<std::string>(), {}};
      option.value = option_value("option '" + option.key + "' of " + option.backend, value);
      result.push_back(std::move(option));
    }
  }
  return result;
}

std::unique_ptr<Program> load(const py::object& source, int num_threads, bool etdump, bool values,
                              const py::dict& backend_options) {
  if (num_threads < 0) {
    throw py::value_error("num_threads: expected 0 (ExecuTorch's default) or more, found " +
                          std::to_string(num_threads));
  }
  const LoadOptions options{num_threads, etdump, values, delegate_options(backend_options)};
  if (py::isinstance<py::str>(source)) {
    const std::string path =
        py::reinterpret_steal<py::bytes>(PyUnicode_EncodeFSDefault(source.ptr()));
    const py::gil_scoped_release release;
    return Program::from_file(path, options);
  }
  if (!py::isinstance<py::buffer>(source)) {
    throw py::type_error("a program is a path (str) or its bytes, found " +
                         py::str(py::type::of(source)).cast<std::string>());
  }
  return load_bytes(py::reinterpret_borrow<py::buffer>(source), options);
}

py::list run(Program& program, const std::string& method, const py::sequence& inputs) {
  const InputBuffers buffers(inputs);
  std::vector<Output> outputs;
  {
    const py::gil_scoped_release release;
    outputs = program.run(method, buffers.inputs());
  }
  return to_python(std::move(outputs));
}

// The times of `runs` runs after `warmup` more, in nanoseconds: of the method alone, without
// handing inputs and outputs over. in_cache: with the method's memory brought into the caches.
std::vector<int64_t> time_runs(Program& program, const std::string& method,
                               const py::sequence& inputs, int runs, int warmup, bool in_cache) {
  if (runs < 1 || warmup < 0) {
    throw py::value_error("runs: expected 1 or more; warmup: expected 0 or more");
  }
  const InputBuffers buffers(inputs);
  const Memory memory = in_cache ? Memory::kInCache : Memory::kAsLeft;
  std::vector<int64_t> times;
  const py::gil_scoped_release release;
  for (int i = -warmup; i < runs; ++i) {
    RunTimes run;
    program.run(method, buffers.inputs(), &run, memory);
    if (i >= 0) times.push_back(run.execute_ns);
  }
  return times;
}

// What was recorded, as (instruction, value).
py::list recorded_values(Program& program) {
  std::vector<RecordedValue> recorded;
  {
    const py::gil_scoped_release release;
    recorded = program.take_values();
  }
  std::vector<int64_t> instructions;
  std::vector<Output> values;
  for (RecordedValue& each : recorded) {
    instructions.push_back(each.instruction);
    values.push_back(std::move(each.value));
  }
  const py::list converted = to_python(std::move(values));
  py::list pairs;
  for (size_t i = 0; i < instructions.size(); ++i) {
    pairs.append(py::make_tuple(instructions[i], converted[i]));
  }
  return pairs;
}

py::bytes to_bytes(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::vector<std::byte> from_bytes(const py::bytes& bytes) {
  const auto view = static_cast<std::string_view>(bytes);
  const auto* data = reinterpret_cast<const std::byte*>(view.data());
  return {data, data + view.size()};
}

// As (what methods share or None, {method: bytes}).
py::tuple state(Program& program) {
  State state;
  {
    const py::gil_scoped_release release;
    state = program.state();
  }
  py::dict methods;
  for (const auto& [name, bytes] : state.methods) {
    methods[py::str(name)] = to_bytes(bytes);
  }
  py::object shared = py::none();
  if (state.shared.has_value()) {
    shared = to_bytes(*state.shared);
  }
  return py::make_tuple(shared, methods);
}

void restore(Program& program, const std::optional<py::bytes>& shared,
             const std::map<std::string, py::bytes>& methods) {
  State state;
  if (shared.has_value()) {
    state.shared = from_bytes(*shared);
  }
  for (const auto& [name, bytes] : methods) {
    state.methods[name] = from_bytes(bytes);
  }
  const py::gil_scoped_release release;
  program.restore(state);
}

void define_infos(py::module_& module) {
  py::class_<ValueInfo>(module, "ValueInfo", "What a method expects or returns at one place.")
      .def_property_readonly("kind", [](const ValueInfo& info) { return kind_name(info.tag); })
      .def_property_readonly("value", [](const ValueInfo& info) { return to_python(info.value); })
      .def_property_readonly(
          "dtype",
          [](const ValueInfo& info) { return info.tensor.dtype ? info.tensor.dtype->name : ""; })
      .def_property_readonly(
          "sizes", [](const ValueInfo& info) { return py::tuple(py::cast(info.tensor.sizes)); })
      .def_property_readonly(
          "dim_order",
          [](const ValueInfo& info) {
            const auto& order = info.tensor.dim_order;
            return py::tuple(py::cast(std::vector<int>(order.begin(), order.end())));
          })
      .def_property_readonly("is_dynamic",
                             [](const ValueInfo& info) { return info.tensor.is_dynamic; })
      .def_property_readonly("is_memory_planned",
                             [](const ValueInfo& info) { return info.tensor.is_memory_planned; })
      .def("__str__", &describe);
  py::class_<MethodInfo>(module, "MethodInfo", "Inputs, outputs and backends of a method.")
      .def_readonly("name", &MethodInfo::name)
      .def_readonly("inputs", &MethodInfo::inputs)
      .def_readonly("outputs", &MethodInfo::outputs)
      .def_readonly("backends", &MethodInfo::backends);
}

void define_program(py::module_& module) {
  const py::call_guard<py::gil_scoped_release> no_gil;
  py::class_<Program>(module, "Program", "A loaded ExecuTorch program.")
      .def(py::init(&load), py::arg("source"), py::kw_only(), py::arg("num_threads") = 0,
           py::arg("etdump") = false, py::arg("values") = false,
           py::arg("backend_options") = py::dict())
      .def("method_names", &Program::method_names)
      .def("fallbacks", &Program::fallbacks)
      .def("peek", &Program::peek, py::arg("method"), no_gil)
      .def("method", &Program::method, py::arg("method"), no_gil)
      .def("run", &run, py::arg("method"), py::arg("inputs"))
      .def("time", &time_runs, py::arg("method"), py::arg("inputs"), py::kw_only(), py::arg("runs"),
           py::arg("warmup"), py::arg("in_cache"))
      .def("unload", &Program::unload, py::arg("method"), no_gil)
      .def("state", &state)
      .def("restore", &restore, py::arg("shared"), py::arg("methods"))
      .def("reset", &Program::reset, no_gil)
      .def("etdump",
           [](Program& program) {
             const std::vector<uint8_t> dump = [&] {
               const py::gil_scoped_release release;
               return program.take_etdump();
             }();
             return py::bytes(reinterpret_cast<const char*>(dump.data()), dump.size());
           })
      .def("values", &recorded_values)
      .def_property_readonly("num_threads", &Program::num_threads)
      .def_property_readonly("source", &Program::source);
}

}  // namespace
}  // namespace orchestrator

PYBIND11_MODULE(_runtime, module) {
  module.doc() = "Native runtime: loads ExecuTorch programs and runs them on buffers.";
  orchestrator::define_exceptions(module);
  orchestrator::define_tensor(module);
  orchestrator::define_infos(module);
  orchestrator::define_program(module);
  module.def("registered_backends", &orchestrator::registered_backends);
  module.def("load_library", &orchestrator::load_library, py::arg("path"));
  module.def("has_tiles", &ggml_delegate::has_tiles);
  module.def("has_byte_products", &ggml_delegate::has_byte_products);
}
