// numpy's .npy files, format versions 1 and 2: C order, little-endian.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "runtime/program/aligned_buffer.h"
#include "runtime/program/tensor.h"

namespace orchestrator {

struct NpyArray {
  const DType* dtype = nullptr;
  std::vector<int64_t> sizes;
  AlignedBuffer data;  // in C order
};

// A file that is no .npy file, or one that this program does not take. what() names the file.
class NpyError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Reads a whole file. Throws NpyError, also for a header that does not fit the file's size; memory
// is allocated only for what the file really holds.
NpyArray read_npy(const std::string& path);

// Writes `data`, in C order. A regular file is replaced only once the new one is complete.
// Throws NpyError.
void write_npy(const std::string& path, const DType& dtype, const std::vector<int64_t>& sizes,
               const void* data);

}  // namespace orchestrator
