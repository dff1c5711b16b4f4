#!/usr/bin/env bash
# Builds with AddressSanitizer and UndefinedBehaviorSanitizer and runs tests on that build.
# Usage: asan.sh BIN_FOLDER [PYTEST_ARGUMENT...]; by default the tests of tests/runtime.
#
# The instrumented files go into an environment of their own, which borrows the packages of the
# usual one, so the usual build stays as it is.
set -euo pipefail
bin=$1
shift
tests=("${@:-tests/runtime}")
root=$PWD
venv=build/asan/venv

"$bin/cmake" --preset asan
"$bin/cmake" --build --preset asan
test -x "$venv/bin/python" || "$bin/python" -m venv --without-pip "$venv"
site() { "$1" -c 'import sysconfig; print(sysconfig.get_path("platlib"))'; }
own=$(site "$venv/bin/python")
usual=$(site "$bin/python")
"$bin/cmake" --install build/asan --component orchestrator --prefix "$own" >/dev/null
# Libraries look for ExecuTorch's beside their own package. The .pth lines come after the folder
# they stand in, so the instrumented _ggml_delegate wins over the usual one.
ln -sfn "$usual/executorch" "$own/executorch"
printf '%s\n' "$root" "$usual" >"$own/usual.pth"

# Python itself is not instrumented, so the sanitizer must be loaded before it; libstdc++ too, or
# the sanitizer misses its exceptions. The interpreter's own leaks are not ours to report.
LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so)" \
  ASAN_OPTIONS=detect_leaks=0:strict_string_checks=1 \
  UBSAN_OPTIONS=print_stacktrace=1 \
  "$venv/bin/python" -m pytest -q -p no:cacheprovider "${tests[@]}"
