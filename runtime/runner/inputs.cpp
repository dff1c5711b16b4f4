#include "runtime/runner/inputs.h"

#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

#include "runtime/runner/exit_codes.h"
#include "runtime/runner/files.h"
#include "runtime/runner/layout.h"
#include "runtime/runner/npy.h"

namespace orchestrator {
namespace {

[[noreturn]] void refuse(const std::string& message) {
  throw ExitError(ExitCode::kBadInput, message);
}

// SplitMix64 (Steele, Lea and Flood, 2014): the same numbers on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t bits() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  // In [-1, 1), in steps of 1/256: exact in every floating dtype.
  float real() { return static_cast<float>(static_cast<int64_t>(bits() >> 55) - 256) / 256; }

 private:
  uint64_t state_;
};

uint16_t to_half(float value) { return executorch::runtime::etensor::Half(value).x; }

uint16_t to_bfloat16(float value) { return executorch::runtime::etensor::BFloat16(value).x; }

template <typename T>
void store(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof(value));
}

void make_up_element(std::byte* to, const DType& dtype, Random& random) {
  switch (dtype.type) {
    case ScalarType::Float:
      return store(to, random.real());
    case ScalarType::Double:
      return store(to, static_cast<double>(random.real()));
    case ScalarType::Half:
      return store(to, to_half(random.real()));
    case ScalarType::BFloat16:
      return store(to, to_bfloat16(random.real()));
    default:
      // An integer: its other bytes are zero already, on this little-endian machine.
      return store(to, static_cast<uint8_t>(random.bits() & 1));
  }
}

class InputMaker {
 public:
  InputMaker(const MethodInfo& method, const Options& options)
      : method_(method), options_(options), random_(options.seed.value_or(0)) {}

  RunInputs make() {
    check_counts();
    for (size_t i = 0; i < method_.inputs.size(); ++i) {
      if (method_.inputs[i].tag == Tag::Tensor) {
        inputs_.values.emplace_back(make_tensor(i));
      } else {
        inputs_.values.emplace_back(method_.inputs[i].value);
        inputs_.sources.emplace_back("program");
      }
    }
    return std::move(inputs_);
  }

 private:
  void check_counts() const {
    size_t tensors = 0;
    for (const ValueInfo& input : method_.inputs) {
      tensors += input.tag == Tag::Tensor ? 1 : 0;
    }
    const size_t files = options_.inputs.size();
    const bool may_make_up = files == 0 || options_.seed.has_value();
    if (files > tensors || (files < tensors && !may_make_up)) {
      refuse("method '" + method_.name + "' takes " + std::to_string(tensors) + " tensors, found " +
             std::to_string(files) + " input files" +
             (files < tensors ? "; --seed makes up the others" : ""));
    }
    for (const auto& [index, sizes] : options_.shapes) {
      if (index >= method_.inputs.size() || method_.inputs[index].tag != Tag::Tensor) {
        refuse("--shape: method '" + method_.name + "' has no tensor input " +
               std::to_string(index));
      }
    }
  }

  TensorView make_tensor(size_t index) {
    const TensorInfo& info = method_.inputs[index].tensor;
    AlignedBuffer data;
    std::vector<int64_t> sizes;
    if (next_file_ == options_.inputs.size()) {
      sizes = chosen_sizes(index);
      data = make_up(info, sizes);
      inputs_.sources.push_back("seed " + std::to_string(options_.seed.value_or(0)));
    } else {
      const Options::InputFile& file = options_.inputs[next_file_++];
      inputs_.sources.push_back(file.path);
      if (file.is_raw) {
        sizes = chosen_sizes(index);
        data = read_raw(file.path, index, sizes);
      } else {
        std::tie(data, sizes) = read_array(file.path, index);
      }
    }
    return in_layout(info, std::move(data), std::move(sizes));
  }

  std::string expected(size_t index) const {
    return "input " + std::to_string(index) + " of method '" + method_.name + "': expected " +
           describe(method_.inputs[index]);
  }

  // Sizes for a tensor that does not bring its own.
  std::vector<int64_t> chosen_sizes(size_t index) const {
    const TensorInfo& info = method_.inputs[index].tensor;
    const auto found = options_.shapes.find(index);
    const std::vector<int64_t>& sizes = found == options_.shapes.end() ? info.sizes : found->second;
    check_sizes(index, sizes);
    return sizes;
  }

  void check_sizes(size_t index, const std::vector<int64_t>& sizes) const {
    const TensorInfo& info = method_.inputs[index].tensor;
    bool fits = sizes.size() == info.sizes.size();
    for (size_t i = 0; fits && i < sizes.size(); ++i) {
      fits = info.is_dynamic ? sizes[i] <= info.sizes[i] : sizes[i] == info.sizes[i];
    }
    if (!fits) {
      refuse(expected(index) + ", found " + list_text(sizes));
    }
  }

  AlignedBuffer make_up(const TensorInfo& info, const std::vector<int64_t>& sizes) {
    const size_t width = info.dtype->size;
    AlignedBuffer data = AlignedBuffer::zeroed(width * static_cast<size_t>(element_count(sizes)));
    for (size_t offset = 0; offset < data.size(); offset += width) {
      make_up_element(data.data() + offset, *info.dtype, random_);
    }
    return data;
  }

  AlignedBuffer read_raw(const std::string& path, size_t index,
                         const std::vector<int64_t>& sizes) const {
    const TensorInfo& info = method_.inputs[index].tensor;
    AlignedBuffer data;
    try {
      data = read_file(path);
    } catch (const std::runtime_error& error) {
      refuse(error.what());
    }
    const size_t size = info.dtype->size * static_cast<size_t>(element_count(sizes));
    if (data.size() != size) {
      refuse(expected(index) + ", that is " + std::to_string(size) + " bytes for " +
             list_text(sizes) + "; '" + path + "' has " + std::to_string(data.size()));
    }
    return data;
  }

  std::pair<AlignedBuffer, std::vector<int64_t>> read_array(const std::string& path,
                                                            size_t index) const {
    NpyArray array;
    try {
      array = read_npy(path);
    } catch (const NpyError& error) {
      refuse(error.what());
    }
    if (array.dtype != method_.inputs[index].tensor.dtype) {
      refuse(expected(index) + "; '" + path + "' holds " + array.dtype->name + " " +
             list_text(array.sizes));
    }
    check_sizes(index, array.sizes);
    return {std::move(array.data), std::move(array.sizes)};
  }

  TensorView in_layout(const TensorInfo& info, AlignedBuffer data, std::vector<int64_t> sizes) {
    TensorView tensor;
    tensor.dtype = info.dtype;
    tensor.sizes = std::move(sizes);
    tensor.strides = dense_strides(tensor.sizes, info.dim_order);
    const std::vector<int64_t> file_strides = c_strides(tensor.sizes);
    if (tensor.strides != file_strides) {
      AlignedBuffer moved(data.size());
      copy_strided(data.data(), file_strides, moved.data(), tensor.strides, tensor.sizes,
                   info.dtype->size);
      data = std::move(moved);
    }
    tensor.data = data.data();
    inputs_.buffers.push_back(std::move(data));
    return tensor;
  }

  const MethodInfo& method_;
  const Options& options_;
  Random random_;
  size_t next_file_ = 0;
  RunInputs inputs_;
};

}  // namespace

RunInputs make_inputs(const MethodInfo& method, const Options& options) {
  try {
    return InputMaker(method, options).make();
  } catch (const std::bad_alloc&) {
    refuse("there is not enough memory for the inputs of method '" + method.name + "'");
  }
}

}  // namespace orchestrator
