#!/usr/bin/env bash
# Writes the frozen graph of ./export_freeze.sh as a SavedModel for TensorFlow
# Serving: the next version in EXPORT_DIR/saved_model/my_MODEL_NAME. Where there
# is no frozen graph yet, and where EXPORT says which checkpoint is meant,
# ./export_freeze.sh makes it first.
#
# usage: [MODEL_NAME=…] [EXPORT=best] ./export_saved_model.sh [flags of
#        export_saved_model.py, --help lists them]
set -euo pipefail
asked_export=${EXPORT:-}
program=export_saved_model.py
source "$(dirname "${BASH_SOURCE[0]}")/env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

if [[ " $* " != *-frozen_file* ]] &&
  [[ -n "${asked_export}" || ! -e "${FROZEN_FILE}" ]]; then
  EXPORT="${EXPORT}" "${PROJECT_DIR}/export_freeze.sh"
fi
exec "${VENV_PYTHON}" "${program}" \
  --frozen_file="${FROZEN_FILE}" \
  --saved_model_dir="${EXPORT_DIR}/saved_model/my_${MODEL_NAME}" \
  "$@"
