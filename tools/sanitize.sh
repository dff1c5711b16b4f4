#!/usr/bin/env bash
# Builds with sanitizers and runs tests on that build.
# Usage: sanitize.sh asan|tsan BIN_FOLDER [PYTEST_ARGUMENT...]
#   asan: AddressSanitizer and UndefinedBehaviorSanitizer; by default the tests of the runtime, of
#     every op and of malformed files.
#   tsan: ThreadSanitizer; by default the concurrency tests.
#
# The instrumented files go into an environment of their own, which borrows the packages of the
# usual one, so the usual build stays as it is.
set -euo pipefail
kind=$1
bin=$2
shift 2
jobs=0
root=$PWD
venv=build/$kind/venv

if [[ $kind == asan ]]; then
  default=(tests/runtime tests/ggml_delegate)
  jobs=${CMAKE_BUILD_PARALLEL_LEVEL:-0}
  # Python itself is not instrumented, so the sanitizer must be loaded before it; libstdc++ too, or
  # the sanitizer misses its exceptions. The interpreter's own leaks are not ours to report.
  preload="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so)"
else
  default=(tests/runtime/test_concurrency.py)
  preload=$(g++ -print-file-name=libtsan.so)
  # libtorch computes what is expected, and its OpenMP threads are not instrumented.
  export OMP_NUM_THREADS=1
fi
tests=("${@:-${default[@]}}")

"$bin/cmake" --preset "$kind"
"$bin/cmake" --build --preset "$kind"
test -x "$venv/bin/python" || "$bin/python" -m venv --without-pip "$venv"
site() { "$1" -c 'import sysconfig; print(sysconfig.get_path("platlib"))'; }
own=$(site "$venv/bin/python")
usual=$(site "$bin/python")
"$bin/cmake" --install "build/$kind" --component orchestrator --prefix "$own" >/dev/null
# Libraries look for ExecuTorch's beside their own package. The .pth lines come after the folder
# they stand in, so the instrumented _ggml_delegate wins over the usual one.
ln -sfn "$usual/executorch" "$own/executorch"
printf '%s\n' "$root" "$usual" >"$own/usual.pth"

# pytest keeps what tests that pass print, but for --capture=sys: reports would go unseen.
LD_PRELOAD=$preload \
  ASAN_OPTIONS=detect_leaks=0:strict_string_checks=1 \
  UBSAN_OPTIONS=print_stacktrace=1 \
  TSAN_OPTIONS="suppressions=$root/tools/tsan.supp:halt_on_error=0:exitcode=66" \
  "$venv/bin/python" -m pytest -q -n "$jobs" --capture=sys -p no:cacheprovider "${tests[@]}"
