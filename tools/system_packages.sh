#!/usr/bin/env bash
# Installs the system packages that the build, the tests or the fuzz targets need, if any is missing
# (Debian, Ubuntu).
# Usage: system_packages.sh PYTHON [build|test|fuzz]
set -euo pipefail
python=$1
purpose=${2:-build}

check_version() {
  local version
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>&1) || true
  if [[ ! $version =~ ^3\.1[123]$ ]]; then
    echo "error: $python is not Python 3.11, 3.12 or 3.13 but: $version" >&2
    echo "Name one that is: make PYTHON=python3.11 (Debian: apt-get install python3.11)" >&2
    exit 1
  fi
}

if command -v "$python" >/dev/null; then check_version; fi

missing=()
need() { # need PACKAGE TEST...: PACKAGE is missing unless TEST succeeds
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}
if [[ $purpose == test ]]; then # the HTML report is opened in a browser
  need chromium command -v chromium
  need chromium-driver command -v chromedriver
fi
if [[ $purpose == fuzz ]]; then
  need clang command -v clang++
  need libclang-rt-dev bash -c \
    'echo "extern \"C\" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }" |
     clang++ -x c++ -fsanitize=fuzzer,address - -o /dev/null'
fi
need g++ command -v g++
need flatbuffers-compiler test -x "$(PATH=/usr/bin:/usr/local/bin command -v flatc || true)"
need libflatbuffers-dev bash -c 'echo "#include <flatbuffers/flatbuffers.h>" | g++ -E -x c++ -'
need libcli11-dev bash -c 'echo "#include <CLI/CLI.hpp>" | g++ -E -x c++ -'
need nlohmann-json3-dev bash -c 'echo "#include <nlohmann/json.hpp>" | g++ -E -x c++ -'
package=$(basename "$python") # Debian names its packages like its interpreters
need "$package" command -v "$python"
need "$package-venv" "$python" -c 'import ensurepip, venv'
need "$package-dev" "$python" -c \
  'import os, sysconfig as s; os.stat(s.get_path("include") + "/Python.h")'

if ((${#missing[@]})); then
  as_root=()
  if [[ $(id -u) != 0 ]]; then
    as_root=(sudo)
    if [[ ! -t 0 ]]; then as_root+=(-n); fi # nobody is there to type a password
  fi
  if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
    echo "error: missing system packages: ${missing[*]}" >&2
    echo "Install them as root, with: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  echo "Installing system packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  wait=(-o DPkg::Lock::Timeout=300) # for another apt to finish
  "${as_root[@]}" apt-get "${wait[@]}" update -qq
  "${as_root[@]}" apt-get "${wait[@]}" install -y -qq --no-install-recommends "${missing[@]}"
fi
check_version
