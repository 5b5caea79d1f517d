#!/usr/bin/env bash
# Exports the frozen graph of ./export_freeze.sh as a SavedModel for TensorFlow
# Serving: the next version in EXPORT_DIR/saved_model/my_MODEL_NAME. If there is
# no frozen graph yet, or if CHECKPOINT is set, ./export_freeze.sh makes it
# first. A frozen graph of another checkpoint than the one of TRAIN_DIR that all
# steps use is an error.
#
# usage: [RUN=…] [MODEL_NAME=…] [CHECKPOINT=newest] \
#        scripts/export_saved_model.sh [flags of export_saved_model.py, --help lists them]
set -euo pipefail
program=tools/export_saved_model.py
uses_run=1
# shellcheck source=env_set.sh
source "$(dirname "${BASH_SOURCE[0]}")/../env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

freeze_if_needed "$@"
exec "${VENV_PYTHON}" "${program}" \
  --frozen_file="${FROZEN_FILE}" \
  --saved_model_dir="${EXPORT_DIR}/saved_model/my_${MODEL_NAME}" \
  "${checkpoint_flags[@]}" \
  "$@"
