#!/usr/bin/env bash
# Builds the fuzz targets and runs them from seeds made of every op; fails on any finding.
# Usage: fuzz.sh BIN_FOLDER SECONDS
#
# What was found stays in build/fuzz/findings, the inputs that reach new code in build/fuzz/corpus.
set -euo pipefail
bin=$1
seconds=$2
folder=build/fuzz

"$bin/cmake" --preset fuzz >/dev/null
"$bin/cmake" --build --preset fuzz -- --quiet
# Made anew when what makes them has changed.
made=$folder/seeds/.made
if [[ ! -e $made ]] || [[ -n $(find ggml_delegate orchestrator fuzz tests/differential -name '*.py' -newer "$made" -print -quit) ]]; then
  rm -rf "$folder/seeds"
  "$bin/python" -m fuzz.seeds "$folder/seeds"
  touch "$made"
fi

# Three quarters of the time go to the IR, where the code is; an allocation above 512 MiB, and
# anything over 10 s, counts as a finding. What the target itself logs, thousands of lines a second,
# is dropped.
run() { # run TARGET SECONDS MAX_BYTES
  local target=$1
  mkdir -p "$folder/corpus/$target" "$folder/findings"
  ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
    LSAN_OPTIONS=suppressions="$PWD/tools/lsan.supp" \
    "$folder/fuzz_$target" "$folder/corpus/$target" "$folder/seeds/$target" \
    -max_total_time="$2" -max_len="$3" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=512 \
    -close_fd_mask=2 -print_final_stats=1 -artifact_prefix="$folder/findings/$target-" 2>"$folder/$target.log" || {
    tail -n 60 "$folder/$target.log" >&2
    echo "fuzz: $target found something; run $folder/fuzz_$target on it:" >&2
    ls "$folder/findings/$target-"* >&2
    exit 1
  }
  grep -aE '^stat::number_of_executed_units|^#[0-9]+.*DONE' "$folder/$target.log"
}
run ir $((seconds * 3 / 4)) 65536
run pte $((seconds - seconds * 3 / 4)) 1048576
echo "fuzz: $seconds s, no findings"
