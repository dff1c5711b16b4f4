// Floats as sums of bfloat16 parts, and weights that one part stands for, where tiles read them.
//
// A float32 is the sum of three bfloat16: its significand has 24 bits, theirs have 8. Their
// products with another bfloat16 are exact in float32, so that the sum of those is as good as a
// product of float32. See G. Henry, P. T. P. Tang, A. Heinecke, "Leveraging the bfloat16 Artificial
// Intelligence Datatype For Higher-Precision Computations", ARITH 2019.
#pragma once

#include <cstdint>

#include "tiles.h"

namespace ggml_delegate {

// What a tile instruction multiplies: kTileHeight rows of kTileDepth elements with a panel's
// columns.
inline constexpr int64_t kTileDepth = 32;
inline constexpr int64_t kTileElements = kTileHeight * kTileDepth;
inline constexpr int kMostParts = 3;
// Elements between the left factor's tiles of one step along k and those of the next: a tile for
// each part.
inline constexpr int64_t kStepElements = kMostParts * kTileElements;

inline int64_t steps_of(int64_t depth) { return (depth + kTileDepth - 1) / kTileDepth; }

// What has been found of rows while they were split.
struct Parts {
  // Whether the parts stand for them as well as float32: no element is infinite or no number, or so
  // large that a part would be; and the largest of each row is 0, or so large that its parts, and
  // those of what counts beside it, are not below the normal numbers, which tiles take for 0.
  bool usable;
  int count;  // further parts are all 0
};

// Rows of floats, `stride` apart, to tiles of `height` rows: [tile][step][part][row][32]. `sums`,
// if not null, gets the sum of each row in each step: [tile][step][kTileHeight].
Parts split_left(const float* from, int64_t stride, int64_t rows, int64_t height, int64_t depth,
                 uint16_t* tiles, float* sums);

// `depth` rows, from k0 on, of panel number `panel` of a packed weight with k rows to tiles:
// [step][16 pairs][column][2]. The weight is of bfloat16, or of integers, (q - zero point) or q, of
// which a step lies in one group; k0 is a multiple of kTileDepth. False if a bfloat16 is infinite,
// no number or not normal.
bool take_right(const RightFactor& right, int64_t k, int64_t panel, int64_t k0, int64_t depth,
                uint16_t* tiles);

}  // namespace ggml_delegate
