#include "strided_copy.h"

#include <algorithm>
#include <cstring>

namespace ggml_delegate {
namespace {

// Shorter runs are copied element by element: a call of memcpy costs more.
constexpr int64_t kShortRun = 8;

void copy_run(const uint32_t* from, int64_t from_step, uint32_t* to, int64_t to_step,
              int64_t count) {
  if (to_step == 1 && from_step == 1) {
    if (count > kShortRun) {
      std::memcpy(to, from, static_cast<size_t>(count) * sizeof(uint32_t));
    } else {
      for (int64_t i = 0; i < count; ++i) to[i] = from[i];
    }
  } else if (to_step == 1 && from_step == 0) {
    std::fill(to, to + count, *from);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i * to_step] = from[i * from_step];
  }
}

// Elements [begin, end) of the piece, counted in its own sequence.
void copy_range(const StridedPiece& piece, const uint32_t* from, uint32_t* to, int64_t begin,
                int64_t end) {
  const size_t inner = piece.sizes.size() - 1;
  const int64_t length = piece.sizes[inner];
  Sizes index;
  int64_t rest = begin / length;
  from += piece.from_offset;
  to += piece.to_offset;
  for (size_t i = 0; i < inner; ++i) index.push_back(0);
  for (size_t i = inner; i-- > 0;) {
    index[i] = rest % piece.sizes[i];
    rest /= piece.sizes[i];
    from += index[i] * piece.from[i];
    to += index[i] * piece.to[i];
  }
  int64_t start = begin % length;
  for (int64_t done = begin; done < end;) {
    const int64_t count = std::min(length - start, end - done);
    copy_run(from + start * piece.from[inner], piece.from[inner], to + start * piece.to[inner],
             piece.to[inner], count);
    done += count;
    start = 0;
    for (size_t i = inner; i-- > 0;) {
      from += piece.from[i];
      to += piece.to[i];
      if (++index[i] < piece.sizes[i]) break;
      from -= piece.from[i] * piece.sizes[i];
      to -= piece.to[i] * piece.sizes[i];
      index[i] = 0;
    }
  }
}

}  // namespace

StridedPiece merged(const StridedPiece& piece) {
  StridedPiece result;
  result.from_offset = piece.from_offset;
  result.to_offset = piece.to_offset;
  for (size_t i = 0; i < piece.sizes.size(); ++i) {
    if (piece.sizes[i] == 1) continue;
    const bool joins = !result.sizes.empty() &&
                       result.from.back() == piece.from[i] * piece.sizes[i] &&
                       result.to.back() == piece.to[i] * piece.sizes[i];
    if (joins) {
      result.sizes.back() *= piece.sizes[i];
      result.from.back() = piece.from[i];
      result.to.back() = piece.to[i];
    } else {
      result.sizes.push_back(piece.sizes[i]);
      result.from.push_back(piece.from[i]);
      result.to.push_back(piece.to[i]);
    }
  }
  if (result.sizes.empty()) {
    result.sizes = result.from = result.to = Sizes{1};
  }
  return result;
}

void strided_copy_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const StridedCopyParams*>(userdata);
  auto* to = static_cast<uint32_t*>(result->data);
  for (size_t i = 0; i < params.pieces.size(); ++i) {
    const StridedPiece& piece = params.pieces[i];
    const int64_t count = element_count(piece.sizes);
    const ggml_tensor* source = result->src[static_cast<size_t>(params.first_source) + i];
    const int64_t begin = count * ith / nth;
    const int64_t end = count * (ith + 1) / nth;
    if (begin < end) {
      copy_range(piece, static_cast<const uint32_t*>(source->data), to, begin, end);
    }
  }
}

}  // namespace ggml_delegate
