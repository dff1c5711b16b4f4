#include "pad.h"

#include <algorithm>
#include <cstring>

namespace ggml_delegate {

void PadParams::add(int64_t size, int64_t pad_before, int64_t pad_after) {
  if (pad_before == 0 && pad_after == 0 && !sizes.empty()) {
    sizes.back() *= size;
    before.back() *= size;
    after.back() *= size;
    return;
  }
  sizes.push_back(size);
  before.push_back(pad_before);
  after.push_back(pad_after);
}

void pad_kernel(ggml_tensor* result, int ith, int nth, void* userdata) {
  const auto& params = *static_cast<const PadParams*>(userdata);
  const auto* from = static_cast<const uint32_t*>(result->src[0]->data);
  auto* to = static_cast<uint32_t*>(result->data);
  if (params.sizes.empty()) {
    if (ith == 0) to[0] = from[0];
    return;
  }
  const size_t inner = params.sizes.size() - 1;
  const int64_t length = params.sizes[inner];
  const int64_t before = params.before[inner];
  const int64_t width = before + length + params.after[inner];
  if (width == 0) return;
  const int64_t rows = ggml_nelements(result) / width;
  for (int64_t row = rows * ith / nth; row < rows * (ith + 1) / nth; ++row) {
    // Where the row comes from: nowhere, if any outer index is in the padding.
    int64_t rest = row;
    int64_t source = 0;
    int64_t stride = length;
    bool inside = true;
    for (size_t i = inner; i-- > 0;) {
      const int64_t size = params.sizes[i];
      const int64_t padded = params.before[i] + size + params.after[i];
      const int64_t index = rest % padded - params.before[i];
      inside = inside && index >= 0 && index < size;
      source += index * stride;
      stride *= size;
      rest /= padded;
    }
    uint32_t* out = to + row * width;
    if (!inside) {
      std::fill(out, out + width, params.fill);
      continue;
    }
    std::fill(out, out + before, params.fill);
    std::memcpy(out + before, from + source, static_cast<size_t>(length) * sizeof(uint32_t));
    std::fill(out + before + length, out + width, params.fill);
  }
}

}  // namespace ggml_delegate
