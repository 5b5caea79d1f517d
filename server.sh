#!/usr/bin/env bash
# Serves the frozen graph of ./export_freeze.sh: a page on port 5001 that takes
# a photo and shows its class scores. As the tutorial's, it answers on every
# address of the machine and keeps the photos that it gets in UPLOAD_FOLDER:
# SERVER_HOST=127.0.0.1 and --nokeep_uploads change that.
#
# usage: [MODEL_NAME=…] [SERVER_PORT=5001] ./server.sh [flags of server.py,
#        --help lists them]
set -euo pipefail
program=server.py
source "$(dirname "${BASH_SOURCE[0]}")/env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

echo "server.sh: --host=${SERVER_HOST}, --keep_uploads in ${UPLOAD_FOLDER};" \
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
