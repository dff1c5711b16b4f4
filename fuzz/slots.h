// Where the numbers of a FlatBuffer stand, found through its schema: new tables and fields of the
// schema are covered without a change here.
#pragma once

#include <flatbuffers/reflection.h>

#include <vector>

namespace ggml_delegate::fuzz {

// One number inside a buffer.
struct Slot {
  uint8_t* bytes;
  reflection::BaseType type;
};

// Every number in the tables, structs and vectors below the root of a verified buffer.
std::vector<Slot> find_slots(const reflection::Schema& schema, uint8_t* buffer);

}  // namespace ggml_delegate::fuzz
