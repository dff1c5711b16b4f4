// Sliding windows over channels-last images, as convolutions and poolings use them.
#pragma once

#include <algorithm>
#include <cstdint>

namespace ggml_delegate {

// One spatial dimension.
struct WindowAxis {
  int64_t in = 1;   // size of the input
  int64_t out = 1;  // number of windows
  int64_t kernel = 1;
  int64_t stride = 1;
  int64_t dilation = 1;
  int64_t pad = 0;  // before the first element

  // Where the first tap of a window lies; negative inside the padding.
  int64_t start(int64_t window) const { return window * stride - pad; }

  // Taps [first, last) of a window lie inside the input.
  void valid_taps(int64_t window, int64_t& first, int64_t& last) const {
    const int64_t begin = start(window);
    first = begin >= 0 ? 0 : std::min((-begin + dilation - 1) / dilation, kernel);
    last = begin >= in ? 0 : std::min((in - begin + dilation - 1) / dilation, kernel);
    last = std::max(first, last);
  }

  // Windows [first, last) lie inside the input with all their taps.
  void whole_windows(int64_t& first, int64_t& last) const {
    first = std::min((pad + stride - 1) / stride, out);
    const int64_t room = in - 1 - dilation * (kernel - 1) + pad;
    last = room < 0 ? first : std::clamp(room / stride + 1, first, out);
  }
};

struct Windows {
  int64_t batch = 1;
  int64_t channels = 1;
  WindowAxis y;
  WindowAxis x;
};

}  // namespace ggml_delegate
