#include "runtime/runner/npy.h"

#include <executorch/runtime/core/exec_aten/util/tensor_dimension_limit.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "runtime/runner/files.h"

namespace orchestrator {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kAlignment = 64;       // of the data, in files we write
constexpr size_t kMaxHeader = 1 << 16;  // numpy's headers have about a hundred bytes

struct Header {
  std::string descr;
  bool fortran_order = false;
  std::vector<int64_t> sizes;
};

// Parses the one Python literal that a header is: {'descr': '<f4', 'fortran_order': False,
// 'shape': (1, 3), }, keys in any order.
class HeaderParser {
 public:
  explicit HeaderParser(std::string_view text) : text_(text) {}

  // Returns false for anything else.
  bool parse(Header& header) {
    bool has_descr = false;
    bool has_order = false;
    bool has_shape = false;
    if (!take("{")) {
      return false;
    }
    while (!take("}")) {
      std::string key;
      if (!parse_string(key) || !take(":")) {
        return false;
      }
      bool* seen = key == "descr"           ? &has_descr
                   : key == "fortran_order" ? &has_order
                   : key == "shape"         ? &has_shape
                                            : nullptr;
      if (seen == nullptr || *seen) {
        return false;
      }
      *seen = true;
      const bool parsed = seen == &has_descr   ? parse_string(header.descr)
                          : seen == &has_order ? parse_bool(header.fortran_order)
                                               : parse_shape(header.sizes);
      if (!parsed || (!take(",") && next() != '}')) {
        return false;
      }
    }
    skip_space();
    return text_.empty() && has_descr && has_order && has_shape;
  }

 private:
  void skip_space() {
    const size_t start = text_.find_first_not_of(" \t\n\r");
    text_.remove_prefix(start == std::string_view::npos ? text_.size() : start);
  }

  char next() {
    skip_space();
    return text_.empty() ? '\0' : text_.front();
  }

  bool take(std::string_view token) {
    skip_space();
    if (text_.substr(0, token.size()) != token) {
      return false;
    }
    text_.remove_prefix(token.size());
    return true;
  }

  bool parse_string(std::string& value) {
    const char quote = next();
    if (quote != '\'' && quote != '"') {
      return false;
    }
    const size_t end = text_.find(quote, 1);
    if (end == std::string_view::npos) {
      return false;
    }
    value = std::string(text_.substr(1, end - 1));
    text_.remove_prefix(end + 1);
    return true;
  }

  bool parse_bool(bool& value) {
    value = take("True");
    return value || take("False");
  }

  bool parse_shape(std::vector<int64_t>& sizes) {
    if (!take("(")) {
      return false;
    }
    while (!take(")")) {
      int64_t size = 0;
      if (sizes.size() == executorch::runtime::kTensorDimensionLimit || !parse_size(size) ||
          (!take(",") && next() != ')')) {
        return false;
      }
      sizes.push_back(size);
    }
    return true;
  }

  bool parse_size(int64_t& size) {
    const char* digits = "0123456789";
    if (std::strchr(digits, next()) == nullptr || next() == '\0') {
      return false;
    }
    size = 0;
    while (!text_.empty() && text_.front() >= '0' && text_.front() <= '9') {
      if (__builtin_mul_overflow(size, 10, &size) ||
          __builtin_add_overflow(size, text_.front() - '0', &size)) {
        return false;
      }
      text_.remove_prefix(1);
    }
    return true;
  }

  std::string_view text_;
};

[[noreturn]] void refuse(const std::string& path, const std::string& problem) {
  throw NpyError("'" + path + "' " + problem);
}

// Splits the header's text off a file's bytes.
std::string_view take_header(const std::string& path, std::string_view& bytes) {
  if (bytes.size() < kMagic.size() + 4 || bytes.substr(0, kMagic.size()) != kMagic) {
    refuse(path, "is not a .npy file");
  }
  const int version = static_cast<unsigned char>(bytes[kMagic.size()]);
  if (version != 1 && version != 2) {
    refuse(path, "has .npy version " + std::to_string(version) + ", expected 1 or 2");
  }
  const size_t length_size = version == 1 ? 2 : 4;
  bytes.remove_prefix(kMagic.size() + 2);
  if (bytes.size() < length_size) {
    refuse(path, "ends within its .npy header");
  }
  size_t length = 0;
  for (size_t i = 0; i < length_size; ++i) {
    length |= static_cast<size_t>(static_cast<unsigned char>(bytes[i])) << (8 * i);
  }
  bytes.remove_prefix(length_size);
  if (length > kMaxHeader || length > bytes.size()) {
    refuse(path, "has a .npy header of " + std::to_string(length) + " bytes, expected at most " +
                     std::to_string(std::min(kMaxHeader, bytes.size())));
  }
  const std::string_view header = bytes.substr(0, length);
  bytes.remove_prefix(length);
  return header;
}

std::string shape_text(const std::vector<int64_t>& sizes) {
  std::string text = "(";
  for (const int64_t size : sizes) {
    text += std::to_string(size) + ", ";
  }
  return text + ")";
}

}  // namespace

NpyArray read_npy(const std::string& path) {
  AlignedBuffer file;
  try {
    file = read_file(path);
  } catch (const std::runtime_error& error) {
    throw NpyError(error.what());
  }
  std::string_view bytes(reinterpret_cast<const char*>(file.data()), file.size());
  Header header;
  if (!HeaderParser(take_header(path, bytes)).parse(header)) {
    refuse(path, "has a malformed .npy header");
  }
  NpyArray array;
  array.dtype = find_npy_dtype(header.descr);
  if (array.dtype == nullptr) {
    refuse(path, "has dtype '" + header.descr + "', expected a little-endian number or bool");
  }
  if (header.fortran_order) {
    refuse(path, "is in Fortran order, expected C order: save numpy.ascontiguousarray(array)");
  }
  auto expected = static_cast<int64_t>(array.dtype->size);
  for (const int64_t size : header.sizes) {
    if (__builtin_mul_overflow(expected, size, &expected)) {
      refuse(path, "has a shape too large for any file: " + list_text(header.sizes));
    }
  }
  if (static_cast<uint64_t>(expected) != bytes.size()) {
    refuse(path, "holds " + std::to_string(bytes.size()) + " bytes of data, expected " +
                     std::to_string(expected) + " for " + array.dtype->name + " " +
                     list_text(header.sizes));
  }
  array.sizes = std::move(header.sizes);
  array.data = AlignedBuffer(bytes.size());
  std::memcpy(array.data.data(), bytes.data(), bytes.size());
  return array;
}

void write_npy(const std::string& path, const DType& dtype, const std::vector<int64_t>& sizes,
               const void* data) {
  std::string header = std::string("{'descr': '") + dtype.npy +
                       "', 'fortran_order': False, 'shape': " + shape_text(sizes) + ", }";
  const size_t before = kMagic.size() + 4;
  header.append(kAlignment - (before + header.size() + 1) % kAlignment, ' ');
  header += '\n';
  std::string start(kMagic);
  start +=
      {'\1', '\0', static_cast<char>(header.size() & 0xff), static_cast<char>(header.size() >> 8)};
  const size_t size = dtype.size * static_cast<size_t>(element_count(sizes));
  try {
    write_file(path, {start, header, std::string_view(static_cast<const char*>(data), size)});
  } catch (const std::runtime_error& error) {
    throw NpyError(error.what());
  }
}

}  // namespace orchestrator
