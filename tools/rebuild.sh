#!/usr/bin/env bash
# Compiles what changed and copies it over the installed files of an editable install.
# Usage: rebuild.sh PYTHON BUILD_FOLDER
set -euo pipefail
python=$1
build=$2

exec 9>"$build/.lock" # two builds in one folder would spoil each other's files
flock 9

bin=$(dirname "$python")
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$bin/cmake" --build "$build" -- --quiet
"$bin/cmake" --install "$build" --component orchestrator --prefix "$site" >"$log" || {
  cat "$log" >&2
  exit 1
}
