#!/usr/bin/env bash
# Writes the report of the run in TRAIN_DIR, TRAIN_DIR/report.html: curves,
# accuracy on validation and test photos, confusion matrix, the most confidently
# wrong photos. Fits the temperature that ./export_freeze.sh adds to the graph.
# Uses the best checkpoint; the newest if training keeps no best one, or with
# CHECKPOINT=newest; --checkpoint_path names another.
#
# usage: [RUN=…] [MODEL_NAME=…] [CHECKPOINT=newest] ./report.sh \
#        [flags of make_report.py, --help lists them]
set -euo pipefail
program=tools/make_report.py
uses_run=1
source "$(dirname "${BASH_SOURCE[0]}")/env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

exec "${VENV_PYTHON}" "${program}" \
  --train_dir="${TRAIN_DIR}" \
  "${checkpoint_flags[@]}" \
  --eval_dir="${EVAL_DIR}" \
  --dataset_name="${DATASET_NAME}" \
  --dataset_dir="${DATASET_DIR}" \
  --batch_size="${BATCH_SIZE}" \
  "${runtime_flags[@]}" \
  "$@"
