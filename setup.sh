#!/usr/bin/env bash
# Creates .venv with everything the scripts need. Safe to run again at any time:
# if nothing has changed it returns at once.
#
# usage: [ENGINE=tf2] ./setup.sh [--dev] [--onnx] [--quiet] [--verbose]
#   --dev      also install what ./run_tests.sh needs, with that of --onnx
#   --onnx     also install what scripts/export_onnx.sh needs
#   --quiet    print only actions and errors
#   --verbose  print pip's output on a terminal, too; else it is in
#              .venv/install.log
#   ENGINE=tf1                  TensorFlow 1.15 on Python 3.7, in .venv
#   ENGINE=tf2                  TensorFlow 2 on Python 3.10 to 3.13, in .venv-tf2
#   without ENGINE              tf1 if there is a Python 3.7, else tf2
#   PYTHON=/path/to/python3.7   use that Python, which also chooses between tf1
#                               and tf2 for this call if ENGINE is not given
set -euo pipefail
# shellcheck source=scripts/help.sh
source "$(dirname "${BASH_SOURCE[0]}")/scripts/help.sh"

quiet=0
verbose=0
options=()
for argument in "$@"; do
  case "${argument}" in
    --dev) options+=(-dev -onnx) ;;
    --onnx) options+=(-onnx) ;;
    --quiet) quiet=1 ;;
    --verbose) verbose=1 ;;
    *) echo "setup.sh: error: unknown argument ${argument}; see --help" >&2
       exit 1 ;;
  esac
done

source "${PROJECT_DIR}/scripts/engine.sh"
files=()
for option in '' "${options[@]}"; do
  files+=("requirements/${ENGINE}${option}.txt")
done

# Whether the environment is complete: its creation can be interrupted, or fail
# without the system's package for pip.
is_usable() {
  is_python "${VENV_PYTHON}" &&
    "${VENV_PYTHON}" -m pip --version >/dev/null 2>&1
}

no_python_found() {
  local newest=${PYTHON_VERSIONS[0]} versions other=
  versions=$(printf ' or %s' "${PYTHON_VERSIONS[@]}")
  versions=${versions# or }
  if [[ -n "${PYTHON:-}" ]]; then
    echo "setup.sh: error: PYTHON is '${PYTHON}', which is not a Python" \
      "${versions}, as ${ENGINE_NAME} requires" >&2
    return
  fi
  if [[ -z "${asked_engine}" ]]; then
    other=$'\nor install a Python 3.10 to 3.13, to use TensorFlow 2 instead'
  elif [[ "${ENGINE}" == tf1 ]]; then
    other=$'\nor give ENGINE=tf2, which needs a Python 3.10 to 3.13'
  fi
  cat >&2 <<TEXT
setup.sh: error: no Python ${versions} found (PATH, pyenv, uv, conda), but ${ENGINE_NAME} requires it. Install it with one of:
  uv python install ${newest}
  pyenv install ${newest}
  conda create --name py${newest/./} python=${newest}
or name one: PYTHON=/path/to/python${newest} ./setup.sh${other}
TEXT
}

install_packages() {
  "${VENV_PYTHON}" -m pip install --quiet --disable-pip-version-check \
    "pip==${PIP_VERSION}" &&
  "${VENV_PYTHON}" -m pip install --disable-pip-version-check \
    --progress-bar on "${files[@]/#/--requirement=${PROJECT_DIR}/}" |
    { grep -v '^Requirement already satisfied' || true; } &&
  "${VENV_PYTHON}" -m pip check
}

# Like install_packages, with one line of progress. On a terminal pip's output
# goes to a file, whose last lines are shown if it fails.
install_with_progress() {
  local log="${VENV}/install.log" status=0 shows
  mkdir -p "${VENV}/tmp"  # Here, so that show_size counts downloads.
  show_size >&"${PROGRESS_FD:-2}" &
  shows=$!
  if [[ -t 1 ]]; then
    TMPDIR="${VENV}/tmp" install_packages >"${log}" 2>&1 || status=$?
  else
    TMPDIR="${VENV}/tmp" install_packages || status=$?
  fi
  kill "${shows}" 2>/dev/null || true
  wait "${shows}" 2>/dev/null || true
  [[ ! -t "${PROGRESS_FD:-2}" ]] || printf '\r\e[K' >&"${PROGRESS_FD:-2}"
  rm -rf "${VENV}/tmp"
  if [[ "${status}" != 0 ]]; then
    [[ ! -t 1 ]] || tail -n 15 "${log}" >&2
    exit "${status}"
  fi
}

# Prints now and then how large the environment is, of how large it will be.
show_size() {
  local start=${SECONDS} shown=0 first='' size speed left line
  while sleep 1 && kill -0 "$$"; do
    size=$(du -sm "${VENV}" 2>/dev/null | cut -f 1) || true  # Files may vanish.
    first=${first:-${size}}
    speed=$(((size - first) / (SECONDS - start)))
    left=$((size < VENV_MB && speed ? (VENV_MB - size) / speed : 0))
    printf -v line 'packages: %d of about %d MB, %d MB/s, %02d:%02d left' \
      "${size}" "${VENV_MB}" "${speed}" $((left / 60)) $((left % 60))
    if [[ -t 1 ]]; then
      printf '\r%s\e[K' "${line}"
    elif ((SECONDS >= shown + 10)); then
      echo "${line}"
      shown=${SECONDS}
    fi
  done
}

install() {
  local python
  if ! is_usable; then
    if ! python=$(find_python); then
      no_python_found
      exit 1
    fi
    echo "Creating $(relative "${VENV}") with ${python}"
    rm -rf "${VENV}"
    "${python}" -m venv "${VENV}"
  fi
  echo "Installing ${files[*]} (TensorFlow alone is 400 to 600 MB)"
  if [[ "${verbose}" == 1 ]]; then
    install_packages
  else
    install_with_progress
  fi
  # Programs in tools/ and benchmarks/ find the project's packages, before
  # installed ones of the same name, also where the project was moved.
  echo 'import os, sys; sys.path.insert(0, os.path.dirname(sys.prefix))' \
    >"$("${VENV_PYTHON}" -c \
      'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth"
}

if [[ "$(uname -sm)" != "Linux x86_64" ]]; then
  echo "setup.sh: error: this is $(uname -sm); TensorFlow 1.15 was built for" \
    "Linux x86_64 only, and nothing else was tested" >&2
  exit 1
fi

# The environment has a copy of each requirements file that was installed.
# Finding a package checks that Python was not replaced by another version.
is_installed() {
  local file
  "${VENV_PYTHON}" -c 'import importlib.util, sys
sys.exit(importlib.util.find_spec("tf_slim") is None)' 2>/dev/null || return 1
  for file in "${files[@]}"; do
    cmp --silent "${PROJECT_DIR}/${file}" "${VENV}/${file##*/}" || return 1
  done
}

if ! is_installed; then
  # Another script may be installing too.
  exec 9>"${PROJECT_DIR}/.setup${ENGINE_SUFFIX}.lock"
  flock 9
  if ! is_installed; then
    install
    cp "${files[@]/#/${PROJECT_DIR}/}" "${VENV}/"
  fi
fi
if [[ "${quiet}" == 0 ]]; then
  echo "Ready: $("${VENV_PYTHON}" --version) in $(relative "${VENV}")"
fi
