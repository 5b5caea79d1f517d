#!/usr/bin/env bash
# Creates .venv with everything the scripts need. Safe to run again at any time:
# if nothing has changed it returns at once.
#
# usage: [ENGINE=tf2] ./setup.sh [--dev] [--quiet]
#   --dev    also install what ./run_tests.sh needs
#   --quiet  print only actions and errors
#   ENGINE=tf1                  TensorFlow 1.15 on Python 3.7, in .venv
#   ENGINE=tf2                  TensorFlow 2 on Python 3.10 to 3.13, in .venv-tf2
#   without ENGINE              tf1 if there is a Python 3.7, else tf2
#   PYTHON=/path/to/python3.7   use that Python, which also chooses between tf1
#                               and tf2 for this call if ENGINE is not given
set -euo pipefail
# shellcheck source=scripts/help.sh
source "$(dirname "${BASH_SOURCE[0]}")/scripts/help.sh"

quiet=0
with_dev=0
for argument in "$@"; do
  case "${argument}" in
    --dev) with_dev=1 ;;
    --quiet) quiet=1 ;;
    *) echo "setup.sh: error: unknown argument ${argument}; see --help" >&2
       exit 1 ;;
  esac
done

source "${PROJECT_DIR}/scripts/engine.sh"
files=("requirements/${ENGINE}.txt")
if [[ "${with_dev}" == 1 ]]; then
  files+=("requirements/${ENGINE}-dev.txt")
fi

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

install() {
  local python
  if ! is_usable; then
    if ! python=$(find_python); then
      no_python_found
      exit 1
    fi
    echo "Creating ${VENV} with ${python}"
    rm -rf "${VENV}"
    "${python}" -m venv "${VENV}"
  fi
  echo "Installing ${files[*]} (TensorFlow alone is 400 to 600 MB)"
  "${VENV_PYTHON}" -m pip install --quiet --disable-pip-version-check \
    "pip==${PIP_VERSION}"
  "${VENV_PYTHON}" -m pip install --disable-pip-version-check \
    --progress-bar on "${files[@]/#/--requirement=${PROJECT_DIR}/}" |
    { grep -v '^Requirement already satisfied' || true; }
  "${VENV_PYTHON}" -m pip check
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
  echo "Ready: $("${VENV_PYTHON}" --version) in ${VENV}"
fi
