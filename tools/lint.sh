#!/usr/bin/env bash
# Runs every static check; the last line says whether all passed.
# Usage: lint.sh BIN_FOLDER
set -euo pipefail
bin=$1

"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy"
mapfile -t sources < <(git ls-files 'runtime/*.cpp' 'runtime/*.h' 'tests/*.cpp' 'tests/*.h')
if ((${#sources[@]} == 0)); then
  echo "error: no C++ sources found under runtime/" >&2
  exit 1
fi
"$bin/clang-format" --dry-run -Werror "${sources[@]}"
echo "lint: all clean"
