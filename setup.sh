#!/usr/bin/env bash
# Makes .venv with everything the scripts need. Safe to run again at any time:
# it does nothing, in a moment, when nothing changed.
#
# usage: ./setup.sh [--dev] [--quiet]
#   --dev    also what ./run_tests.sh needs
#   --quiet  print only what is done or wrong
#   PYTHON=/path/to/python3.7 ./setup.sh   to use that Python
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

VENV=.venv
quiet=0
files=(requirements.txt)
for argument in "$@"; do
  case "${argument}" in
    --dev) files+=(requirements-dev.txt) ;;
    --quiet) quiet=1 ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) echo "setup.sh: error: unknown argument ${argument}; see --help" >&2
       exit 1 ;;
  esac
done

is_37() {
  "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 7))' \
    >/dev/null 2>&1
}

# Prints places where a Python 3.7 may be, a path a line.
candidates() {
  if [[ -n "${PYTHON:-}" ]]; then
    echo "${PYTHON}"
    return
  fi
  # A pyenv shim of that name may be there and refuse: is_37 tries them all.
  local name
  for name in python3.7 python3 python; do
    command -v "${name}" || true
  done
  ls -d "${PYENV_ROOT:-${HOME:-/root}/.pyenv}"/versions/3.7*/bin/python \
    2>/dev/null || true
  if command -v pyenv >/dev/null; then
    local version
    for version in $(pyenv versions --bare 2>/dev/null | grep '^3\.7' || true)
    do
      echo "$(pyenv prefix "${version}" 2>/dev/null)/bin/python"
    done
  fi
  if command -v uv >/dev/null; then
    uv python find 3.7 2>/dev/null || true
  fi
  if command -v conda >/dev/null; then
    local folder
    conda env list 2>/dev/null | grep -v '^#' | grep -o '/.*' |
      while read -r folder; do echo "${folder}/bin/python"; done || true
  fi
}

find_python() {
  local candidate
  while read -r candidate; do
    if is_37 "${candidate}"; then
      echo "${candidate}"
      return 0
    fi
  done < <(candidates)
  return 1
}

# Whether .venv is whole: making it can be interrupted, or fail without the
# system's package for pip.
is_usable() {
  is_37 "${VENV}/bin/python" &&
    "${VENV}/bin/python" -m pip --version >/dev/null 2>&1
}

install() {
  local python
  if ! is_usable; then
    if ! python=$(find_python); then
      cat >&2 <<'TEXT'
setup.sh: error: no Python 3.7 found (PATH, pyenv, uv, conda), and TensorFlow 1.15 runs on no later one. Install it with one of:
  uv python install 3.7
  pyenv install 3.7
  conda create --name py37 python=3.7
or name one: PYTHON=/path/to/python3.7 ./setup.sh
TEXT
      exit 1
    fi
    echo "Making ${VENV} with ${python}"
    rm -rf "${VENV}"
    "${python}" -m venv "${VENV}"
  fi
  echo "Installing ${files[*]} (TensorFlow alone is 400 MB)"
  "${VENV}/bin/python" -m pip install --quiet --disable-pip-version-check \
    pip==23.2.1
  "${VENV}/bin/python" -m pip install --disable-pip-version-check \
    --progress-bar on "${files[@]/#/--requirement=}" |
    { grep -v '^Requirement already satisfied' || true; }
  "${VENV}/bin/python" -m pip check
}

if [[ "$(uname -sm)" != "Linux x86_64" ]]; then
  echo "setup.sh: error: this is $(uname -sm); TensorFlow 1.15 was built for" \
    "Linux x86_64 only" >&2
  exit 1
fi

# Beside .venv's packages lies a copy of each file that was installed.
is_installed() {
  local file
  [[ -x "${VENV}/bin/python" ]] || return 1
  for file in "${files[@]}"; do
    cmp --silent "${file}" "${VENV}/${file}" || return 1
  done
}

if ! is_installed; then
  # Another script may be at the same.
  exec 9>.setup.lock
  flock 9
  if ! is_installed; then
    install
    cp "${files[@]}" "${VENV}/"
  fi
fi
if [[ "${quiet}" == 0 ]]; then
  echo "Ready: $("${VENV}/bin/python" --version) in ${VENV}"
fi
