#include "runtime/runner/outputs.h"

#include <filesystem>
#include <optional>

#include "runtime/runner/exit_codes.h"
#include "runtime/runner/layout.h"
#include "runtime/runner/npy.h"

namespace orchestrator {
namespace {

void write_tensor(const OutputTensor& tensor, const std::string& file) {
  const std::vector<int64_t> file_strides = c_strides(tensor.sizes);
  if (tensor.strides == file_strides) {
    write_npy(file, *tensor.dtype, tensor.sizes, tensor.data.data());
    return;
  }
  const AlignedBuffer ordered(tensor.data.size());
  copy_strided(tensor.data.data(), tensor.strides, ordered.data(), file_strides, tensor.sizes,
               tensor.dtype->size);
  write_npy(file, *tensor.dtype, tensor.sizes, ordered.data());
}

void write_scalar(const Scalar& scalar, const std::string& file) {
  if (const auto* boolean = std::get_if<bool>(&scalar)) {
    write_npy(file, *find_dtype(ScalarType::Bool), {}, boolean);
  } else if (const auto* integer = std::get_if<int64_t>(&scalar)) {
    write_npy(file, *find_dtype(ScalarType::Long), {}, integer);
  } else if (const auto* real = std::get_if<double>(&scalar)) {
    write_npy(file, *find_dtype(ScalarType::Double), {}, real);
  } else if (const auto* text = std::get_if<std::string>(&scalar)) {
    write_npy(file, *find_dtype(ScalarType::Byte), {static_cast<int64_t>(text->size())},
              text->data());
  }
}

}  // namespace

std::vector<std::string> plan_output_files(const MethodInfo& method, const Options& options) {
  std::vector<std::string> files = options.outputs;
  if (files.size() > method.outputs.size()) {
    throw ExitError(ExitCode::kBadUsage, "--output: method '" + method.name + "' has " +
                                             std::to_string(method.outputs.size()) +
                                             " outputs, found " + std::to_string(files.size()) +
                                             " files");
  }
  files.resize(method.outputs.size());
  if (options.output_dir.empty()) {
    return files;
  }
  const std::filesystem::path folder(options.output_dir);
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    throw ExitError(ExitCode::kOutputFailed,
                    "'" + options.output_dir + "' cannot be made: " + error.message());
  }
  for (size_t i = 0; i < files.size(); ++i) {
    files[i] = (folder / ("output_" + std::to_string(i) + ".npy")).string();
  }
  return files;
}

void write_outputs(const std::vector<Output>& outputs, const std::vector<std::string>& files) {
  try {
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (files[i].empty()) {
        continue;
      }
      if (const auto* tensor = std::get_if<OutputTensor>(&outputs[i])) {
        write_tensor(*tensor, files[i]);
      } else {
        write_scalar(std::get<Scalar>(outputs[i]), files[i]);
      }
    }
  } catch (const NpyError& error) {
    throw ExitError(ExitCode::kOutputFailed, error.what());
  }
}

}  // namespace orchestrator
