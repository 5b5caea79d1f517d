#!/usr/bin/env bash
# Serves the frozen graph of ./export_freeze.sh: a page on port 5001 that takes
# a photo and shows its class scores. Like the tutorial's server, it answers on
# every address of the machine and keeps received photos in UPLOAD_FOLDER:
# SERVER_HOST=127.0.0.1 and --nokeep_uploads change that.
#
# If others can reach it and ENGINE is not set, TensorFlow 2 is used if it is
# set up or can be: its packages get security fixes. It reads the graphs
# exported by either engine.
#
# usage: [RUN=…] [MODEL_NAME=…] [SERVER_PORT=5001] ./server.sh \
#        [flags of server.py, --help lists them]
set -euo pipefail
program=server.py
# The graph is that of a run, unless another one is given.
if [[ -z "${FROZEN_FILE:-}" && ! " $*" =~ \ --?(model_name|model_dir) ]]; then
  uses_run=1
fi
source "$(dirname "${BASH_SOURCE[0]}")/env_set.sh"

# Sets `host` to the address for server.py: the last --host in "$@" counts.
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

# Serves with TensorFlow 2 if it is set up or can be.
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
      # Known vulnerabilities that a visitor can reach; for the others see
      # docs/server.md.
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
  "${runtime_flags[@]}" \
  --upload_folder="${UPLOAD_FOLDER}" \
  --keep_uploads \
  ${INBOX:+--inbox="${INBOX}"} \
  --host="${SERVER_HOST}" \
  --port="${SERVER_PORT}" \
  "$@"
