#!/usr/bin/env bash
# Installs the Python packages for building, running and developing into a virtual environment.
# Usage: dependencies.sh PYTHON
set -euo pipefail
python=$1

requirements() { # requirements EXPRESSION: prints a list of pyproject.toml, one entry a line
  "$python" -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb')); print(*($1), sep='\n')"
}
mapfile -t build < <(requirements "p['build-system']['requires']")
mapfile -t run < <(requirements "p['project']['dependencies']")
mapfile -t extra < <(requirements "sum((requirements for extra, requirements in
  p['project']['optional-dependencies'].items() if extra not in ('models', 'llm', 'openvino')), [])")
mapfile -t models < <(requirements "sum((p['project']['optional-dependencies'][extra]
  for extra in ('models', 'llm', 'openvino')), [])")

# torch goes first and alone: what executorch asks for would let pip choose another version of it.
for requirement in "${run[@]}"; do
  if [[ $requirement == torch==* ]]; then
    "$python" -m pip install --quiet "$requirement"
  fi
done
"$python" -m pip install --quiet "${build[@]}" 'cmake>=3.28' 'ninja>=1.11' "${run[@]}" "${extra[@]}"
# What they ask for would change the versions above (openvino wants an older numpy, and runs with
# this one), and nearly nothing of it is needed: of most of them only files are read.
"$python" -m pip install --quiet --no-deps "${models[@]}"
