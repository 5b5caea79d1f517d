#!/usr/bin/env bash
# Selects the TensorFlow engine and its Python; sourced by every script.
#   ENGINE=tf1  TensorFlow 1.15 on Python 3.7 in .venv, the reference
#   ENGINE=tf2  TensorFlow 2 on Python 3.10 to 3.13 in .venv-tf2
#   unset       tf1 if there is a Python 3.7, else tf2
# shellcheck shell=bash
# shellcheck disable=SC2034  # used by the scripts that source this

# shellcheck source=scripts/help.sh
source "$(dirname "${BASH_SOURCE[0]}")/help.sh"

use_engine() {
  ENGINE=$1
  case "${ENGINE}" in
    tf1) ENGINE_NAME='TensorFlow 1.15'
         ENGINE_SUFFIX=''
         PYTHON_VERSIONS=(3.7)
         PIP_VERSION=23.2.1
         VENV_MB=2100 ;;  # With what is downloaded for it.
    tf2) ENGINE_NAME='TensorFlow 2'
         ENGINE_SUFFIX=-tf2
         PYTHON_VERSIONS=(3.12 3.13 3.11 3.10)
         PIP_VERSION=26.3
         VENV_MB=3200 ;;
    *) echo "$(basename "$0"): error: ENGINE is '${ENGINE}', accepted are" \
         "tf1 and tf2" >&2
       exit 1 ;;
  esac
  VENV="${PROJECT_DIR}/.venv${ENGINE_SUFFIX}"
  VENV_PYTHON="${VENV}/bin/python"
}

# Whether the command is a Python of one of the engine's versions.
is_python() {
  "$1" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] not in sys.argv)' \
    "${PYTHON_VERSIONS[@]}" >/dev/null 2>&1
}

# Prints paths where a Python for the engine may be, one per line.
python_candidates() {
  if [[ -n "${PYTHON:-}" ]]; then
    echo "${PYTHON}"
    return
  fi
  # A pyenv shim of that name may exist and fail: is_python tries all of them.
  local name version folder
  for name in "${PYTHON_VERSIONS[@]/#/python}" python3 python; do
    command -v "${name}" || true
  done
  for version in "${PYTHON_VERSIONS[@]}"; do
    ls -d "${PYENV_ROOT:-${HOME:-/root}/.pyenv}/versions/${version}".*/bin/python \
      2>/dev/null || true
    if command -v pyenv >/dev/null; then
      for name in $(pyenv versions --bare 2>/dev/null |
                    grep "^${version/./\\.}" || true); do
        echo "$(pyenv prefix "${name}" 2>/dev/null)/bin/python"
      done
    fi
    if command -v uv >/dev/null; then
      uv python find "${version}" 2>/dev/null || true
    fi
  done
  if command -v conda >/dev/null; then
    conda env list 2>/dev/null | grep -v '^#' | grep -o '/.*' |
      while read -r folder; do echo "${folder}/bin/python"; done || true
  fi
}

find_python() {
  local candidate
  while read -r candidate; do
    if is_python "${candidate}"; then
      echo "${candidate}"
      return 0
    fi
  done < <(python_candidates)
  return 1
}

# Whether the engine's environment exists, or a Python to create it with. If
# PYTHON is set, only that is considered.
has_python() {
  if [[ -z "${PYTHON:-}" ]] && is_python "${VENV_PYTHON}"; then
    return 0
  fi
  find_python >/dev/null
}

# Prints the engine to use if none is given; if it is not the reference, prints
# the reason to stderr.
choose_engine() {
  use_engine tf1
  if ! has_python; then
    use_engine tf2
    if has_python; then
      local why='No Python 3.7 found'
      if [[ -n "${PYTHON:-}" ]]; then
        why="PYTHON is ${PYTHON}, no Python 3.7"
      fi
      echo "${why}, so ${ENGINE_NAME} runs instead of 1.15" \
        "(ENGINE=tf2 asks for it without this line)" >&2
      echo tf2
      return
    fi
  fi
  echo tf1
}

asked_engine=${ENGINE:-}
use_engine "${ENGINE:-$(choose_engine)}"
export ENGINE
