#!/usr/bin/env bash
# Prints the help of a script; sourced by every script, before anything else. If
# --help is among the script's arguments, prints the comment at the top of the
# script, the variables that it reads and the flags of its program (the variable
# `program`), and exits. For that nothing is installed, and no environment is
# needed. Otherwise makes `program`, a path in the project, absolute.
# shellcheck shell=bash

PROJECT_DIR="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

show_help() {
  local python
  for python in "${PROJECT_DIR}"/.venv{,-tf2}/bin/python python3 python; do
    if "${python}" -c 'import sys; sys.exit(sys.version_info < (3, 6))' \
      >/dev/null 2>&1; then
      "${python}" "${PROJECT_DIR}/common/show_help.py" "$0" \
        ${program:+"${PROJECT_DIR}/${program#"${PROJECT_DIR}"/}"}
      return
    fi
  done
  sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"
  echo "(there is no Python here, which would list variables and flags)"
}

# Prints a path for a message: relative to the current folder if it is below it.
relative() {
  if [[ "${PWD}" != / && "$1" == "${PWD}"/* ]]; then
    echo "${1#"${PWD}"/}"
  else
    echo "$1"
  fi
}

for argument in "$@"; do
  case "${argument}" in
    -h | -help | --help | --helpfull | --helpshort)
      show_help
      exit 0
      ;;
  esac
done
[[ "${program:-/}" == /* ]] || program="${PROJECT_DIR}/${program}"
