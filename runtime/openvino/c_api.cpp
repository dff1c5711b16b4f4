#include "runtime/openvino/c_api.h"

#include <dlfcn.h>
#include <link.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <vector>

namespace openvino_delegate {
namespace {

namespace fs = std::filesystem;

constexpr char kName[] = "libopenvino_c.so";
constexpr char kRelease[] = "2025.";  // whose structures c_api.h declares
constexpr char kNeeds[] =
    "needs openvino >= 2025.1, < 2026: pip install executorch-orchestrator[openvino]";

bool is_library(const fs::path& path) { return path.filename().string().rfind(kName, 0) == 0; }

// One that this process has loaded already, as Python does.
std::string loaded_library() {
  std::string found;
  const auto visit = [](dl_phdr_info* info, size_t /*size*/, void* data) {
    if (info->dlpi_name == nullptr || !is_library(info->dlpi_name)) {
      return 0;
    }
    *static_cast<std::string*>(data) = info->dlpi_name;
    return 1;
  };
  dl_iterate_phdr(visit, &found);
  return found;
}

// That of the Python package openvino, where it is installed beside the package of this library.
std::string installed_library() {
  Dl_info self{};
  if (dladdr(reinterpret_cast<const void*>(&library), &self) == 0 || self.dli_fname == nullptr) {
    return "";
  }
  std::error_code error;
  const fs::path packages = fs::canonical(self.dli_fname, error).parent_path().parent_path();
  for (const auto& entry : fs::directory_iterator(packages / "openvino" / "libs", error)) {
    if (is_library(entry.path())) {
      return entry.path().string();
    }
  }
  return "";
}

std::vector<std::string> candidates() {
  const char* const given = std::getenv("OPENVINO_LIB_PATH");
  std::vector<std::string> paths;
  for (std::string path : {loaded_library(), std::string(given == nullptr ? "" : given),
                           installed_library(), std::string(kName)}) {
    if (!path.empty()) {
      paths.push_back(std::move(path));
    }
  }
  return paths;
}

// Returns the name of a function that is missing, or null.
const char* resolve(void* handle, Api* api) {
  const char* missing = nullptr;
  const auto find = [&](const char* name, auto* function) {
    *function = reinterpret_cast<std::decay_t<decltype(*function)>>(dlsym(handle, name));
    if (*function == nullptr) {
      missing = name;
    }
  };
#define FIND(name) find("ov_" #name, &api->name)
  FIND(get_openvino_version);
  FIND(version_free);
  FIND(get_last_err_msg);
  FIND(core_create);
  FIND(core_free);
  FIND(core_set_property);
  FIND(core_import_model);
  FIND(compiled_model_free);
  FIND(compiled_model_inputs_size);
  FIND(compiled_model_outputs_size);
  FIND(compiled_model_input_by_index);
  FIND(compiled_model_output_by_index);
  FIND(port_get_element_type);
  FIND(const_port_get_shape);
  FIND(port_get_any_name);
  FIND(free);
  FIND(output_const_port_free);
  FIND(shape_free);
  FIND(compiled_model_create_infer_request);
  FIND(infer_request_set_input_tensor_by_index);
  FIND(infer_request_set_output_tensor_by_index);
  FIND(infer_request_infer);
  FIND(infer_request_free);
  FIND(tensor_create_from_host_ptr);
  FIND(tensor_free);
#undef FIND
  return missing;
}

std::string version_of(const Api& api) {
  ov_version version{};
  if (api.get_openvino_version(&version) != 0 || version.build_number == nullptr) {
    return "";
  }
  std::string build = version.build_number;
  api.version_free(&version);
  return build;
}

// Returns what is wrong with the library of a path, or "".
std::string load(const std::string& path, Api* api) {
  void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* const why = dlerror();
    return why == nullptr ? path + " cannot be loaded" : why;
  }
  const char* const missing = resolve(handle, api);
  if (missing != nullptr) {
    return path + " lacks " + missing;
  }
  const std::string version = version_of(*api);
  if (version.rfind(kRelease, 0) != 0) {
    return "found " + (version.empty() ? "one without a version" : version) + " in " + path;
  }
  return "";
}

Library find() {
  std::string problems;
  for (const std::string& path : candidates()) {
    Library found;
    const std::string problem = load(path, &found.api);
    if (problem.empty()) {
      return found;
    }
    problems += "; " + problem;
  }
  return {{}, kNeeds + problems};
}

}  // namespace

const Library& library() {
  static const Library found = find();
  return found;
}

}  // namespace openvino_delegate
