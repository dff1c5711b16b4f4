#!/usr/bin/env bash
# Installs the system packages that the build needs, if any is missing (Debian, Ubuntu).
# Usage: system_packages.sh PYTHON
set -euo pipefail
python=$1

missing=()
need() { # need PACKAGE TEST...: PACKAGE is missing unless TEST succeeds
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}
need g++ command -v g++
need flatbuffers-compiler test -x "$(PATH=/usr/bin:/usr/local/bin command -v flatc || true)"
need libflatbuffers-dev bash -c 'echo "#include <flatbuffers/flatbuffers.h>" | g++ -E -x c++ -'
package=$(basename "$python") # Debian names its packages like its interpreters
need "$package" command -v "$python"
need "$package-venv" "$python" -c 'import ensurepip, venv'
need "$package-dev" "$python" -c \
  'import os, sysconfig as s; os.stat(s.get_path("include") + "/Python.h")'

if ((${#missing[@]})); then
  as_root=()
  if [[ $(id -u) != 0 ]]; then as_root=(sudo -n); fi
  if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
    echo "error: missing system packages: ${missing[*]}" >&2
    echo "Install them as root, with: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  echo "Installing system packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $version in
  3.1[123]) ;;
  *)
    echo "error: $python is Python $version; expected 3.11, 3.12 or 3.13." >&2
    echo "Install python3.11 and its python3.11-venv, then: make PYTHON=python3.11" >&2
    exit 1
    ;;
esac
