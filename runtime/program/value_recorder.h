// A profile that also keeps what the instructions of a run take and give, for comparing them.
#pragma once

#include <executorch/devtools/etdump/etdump_flatcc.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "runtime/program/tensor.h"

namespace orchestrator {

// A value that an instruction of the program was called with: its inputs, then its outputs, as
// they are after the call. Kernels give their outputs alone.
struct RecordedValue {
  int64_t instruction = 0;
  Output value;
};

class ValueRecorder final : public executorch::etdump::ETDumpGen {
 public:
  ValueRecorder();

  executorch::runtime::Result<bool> log_evalue(
      const executorch::runtime::EValue& evalue,
      executorch::runtime::LoggedEValueType evalue_type) override;

  // What was recorded since the last call.
  std::vector<RecordedValue> take() { return std::move(values_); }

 private:
  std::vector<RecordedValue> values_;
};

}  // namespace orchestrator
