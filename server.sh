#!/usr/bin/env bash
# Serves the frozen graph of ./export_freeze.sh: a page on port 5001 that takes
# a photo and shows its class scores. SERVER_HOST=127.0.0.1 keeps it to this
# machine; the default is every address of it.
#
# usage: [MODEL_NAME=…] [SERVER_PORT=5001] ./server.sh [flags of server.py,
#        --help lists them]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./env_set.sh
./setup.sh --quiet
program=(server.py)
help_if_asked "$@"

exec "${VENV_PYTHON}" "${program[@]}" \
  --model_dir= \
  --model_name="${FROZEN_FILE}" \
  --label_file="${LABEL_FILE}" \
  --upload_folder="${UPLOAD_FOLDER}" \
  --host="${SERVER_HOST}" \
  --port="${SERVER_PORT}" \
  "$@"
