// How kernels divide their work.
#pragma once

#include <algorithm>
#include <cstdint>

namespace ggml_delegate {

struct Range {
  int64_t first;
  int64_t last;
};

// The part of [0, count) that thread `ith` of `nth` does; parts start at multiples of `grain`.
inline Range part_of(int64_t count, int ith, int nth, int64_t grain = 1) {
  const int64_t grains = (count + grain - 1) / grain;
  return {std::min(grains * ith / nth * grain, count),
          std::min(grains * (ith + 1) / nth * grain, count)};
}

}  // namespace ggml_delegate
