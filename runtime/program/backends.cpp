#include "runtime/program/backends.h"

#include <dlfcn.h>
#include <executorch/runtime/backend/interface.h>

#include <algorithm>
#include <map>
#include <stdexcept>

namespace orchestrator {

std::vector<std::string> registered_backends() {
  std::vector<std::string> names;
  for (size_t i = 0; i < executorch::runtime::get_num_registered_backends(); ++i) {
    const executorch::runtime::Result<const char*> name = executorch::runtime::get_backend_name(i);
    if (name.ok()) names.emplace_back(name.get());
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool is_usable(const std::string& backend) {
  const auto* const found = executorch::runtime::get_backend_class(backend.c_str());
  return found != nullptr && found->is_available();
}

std::string origin_of(const std::string& backend) {
  static const std::map<std::string, std::string> kOrigins = {
      {"OpenvinoBackend", "the package openvino: pip install executorch-orchestrator[openvino]"},
      {"VulkanBackend", "an ExecuTorch that is built with EXECUTORCH_BUILD_VULKAN, on a GPU"},
      {"CoreMLBackend", "ExecuTorch for macOS and iOS"},
      {"MPSBackend", "ExecuTorch for macOS and iOS"},
      {"QnnBackend", "an ExecuTorch that is built with EXECUTORCH_BUILD_QNN, and Qualcomm's SDK"},
      {"EthosUBackend", "ExecuTorch for Arm's Ethos-U"},
      {"NeuropilotBackend", "ExecuTorch for MediaTek's NeuroPilot"},
      {"CudaBackend", "an ExecuTorch that is built with EXECUTORCH_BUILD_CUDA"},
  };
  const auto found = kOrigins.find(backend);
  return found == kOrigins.end() ? "" : found->second;
}

void load_library(const std::string& path) {
  if (dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) == nullptr) throw std::runtime_error(dlerror());
}

}  // namespace orchestrator
