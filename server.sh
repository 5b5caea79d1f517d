#!/usr/bin/env bash
# Serves the frozen graph of ./export_freeze.sh: a page on port 5001 that takes
# a photo and shows its class scores. As the tutorial's, it answers on every
# address of the machine and keeps the photos that it gets in UPLOAD_FOLDER:
# SERVER_HOST=127.0.0.1 and --nokeep_uploads change that.
#
# Where others can reach it and ENGINE is not given, TensorFlow 2 serves, if it
# is set up or can be: its packages get security fixes. It reads the graphs that
# either engine has exported.
#
# usage: [MODEL_NAME=…] [SERVER_PORT=5001] ./server.sh [flags of server.py,
#        --help lists them]
set -euo pipefail
program=server.py
source "$(dirname "${BASH_SOURCE[0]}")/env_set.sh"

# Sets `host` to what server.py will listen on: the last --host of "$@" counts.
find_host() {
  local argument previous=
  host=${SERVER_HOST}
  for argument in "$@"; do
    if [[ "${argument}" =~ ^--?host=(.*)$ ]]; then
      host=${BASH_REMATCH[1]}
    elif [[ "${previous}" =~ ^--?host$ ]]; then
      host=${argument}
    fi
    previous=${argument}
  done
}

# Has TensorFlow 2 serve, where it is set up or can be.
prefer_fixed_packages() {
  use_engine tf2
  if has_python; then
    echo "server.sh: others can reach ${host}, so ${ENGINE_NAME} serves, whose" \
      "packages get security fixes; ENGINE=tf1 takes 1.15" >&2
    "${PROJECT_DIR}/setup.sh" --quiet && return
  fi
  use_engine tf1
}

find_host "$@"
case "${host}" in
  127.* | localhost | ::1) ;;
  *)
    if [[ -z "${asked_engine}${PYTHON:-}" && "${ENGINE}" == tf1 ]]; then
      prefer_fixed_packages
    fi
    if [[ "${ENGINE}" == tf1 ]]; then
      # What a visitor may reach; the others are in docs/server.md.
      echo "server.sh: warning: others can reach ${host}, and the packages of" \
        "ENGINE=tf1 get no security fixes: open is CVE-2024-49769 (waitress" \
        "2.1.2); ENGINE=tf2 or SERVER_HOST=127.0.0.1 closes it" >&2
    fi
    ;;
esac
"${PROJECT_DIR}/setup.sh" --quiet

echo "server.sh: --host=${host}, --keep_uploads in ${UPLOAD_FOLDER};" \
  "SERVER_HOST=127.0.0.1 and --nokeep_uploads change that" >&2
exec "${VENV_PYTHON}" "${program}" \
  --model_dir= \
  --model_name="${FROZEN_FILE}" \
  --label_file="${LABEL_FILE}" \
  --upload_folder="${UPLOAD_FOLDER}" \
  --keep_uploads \
  --host="${SERVER_HOST}" \
  --port="${SERVER_PORT}" \
  "$@"
