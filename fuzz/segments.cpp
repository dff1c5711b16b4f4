#include "segments.h"

#include <flatbuffers/flatbuffers.h>

#include <cstring>

namespace ggml_delegate::fuzz {
namespace {

// Of ExecuTorch's schema/extended_header.h and schema/program.fbs.
constexpr size_t kSegmentBase = 24;
constexpr flatbuffers::voffset_t kSegments = 12;
constexpr flatbuffers::voffset_t kSegmentOffset = 4;
constexpr flatbuffers::voffset_t kSegmentSize = 6;

}  // namespace

std::vector<std::pair<size_t, size_t>> find_ir(const uint8_t* data, size_t size) {
  std::vector<std::pair<size_t, size_t>> found;
  flatbuffers::Verifier verifier(data, size);
  if (size < 48 || std::memcmp(data + 8, "eh00", 4) != 0) return found;
  const auto* root = flatbuffers::GetRoot<flatbuffers::Table>(data);
  const auto* start = reinterpret_cast<const uint8_t*>(root);
  if (start < data || start + 4 > data + size || !root->VerifyTableStart(verifier)) return found;
  using Segments = flatbuffers::Vector<flatbuffers::Offset<flatbuffers::Table>>;
  const auto* segments = root->GetPointer<const Segments*>(kSegments);
  if (segments == nullptr || !verifier.VerifyVector(segments)) return found;
  uint64_t base = 0;
  std::memcpy(&base, data + kSegmentBase, sizeof(base));
  for (const auto* segment : *segments) {
    if (!segment->VerifyTableStart(verifier)) return found;
    const auto offset = base + segment->GetField<uint64_t>(kSegmentOffset, 0);
    const auto length = segment->GetField<uint64_t>(kSegmentSize, 0);
    if (offset < size && length >= 16 && length <= size - offset &&
        std::memcmp(data + offset + 4, "GGIR", 4) == 0) {
      found.emplace_back(offset, length);
    }
  }
  return found;
}

}  // namespace ggml_delegate::fuzz
