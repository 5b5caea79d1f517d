#!/usr/bin/env bash
# Writes one page about the run in TRAIN_DIR, TRAIN_DIR/report.html: curves,
# accuracy on validation and test photos, confusion matrix, the photos that are
# most confidently wrong. Fits the temperature that ./export_freeze.sh puts into
# the graph. Takes the best checkpoint; the newest where training keeps no best
# one, and with CHECKPOINT=newest; --checkpoint_path names another.
#
# usage: [MODEL_NAME=…] [CHECKPOINT=newest] ./report.sh [flags of make_report.py,
#        --help lists them]
set -euo pipefail
program=tools/make_report.py
source "$(dirname "${BASH_SOURCE[0]}")/env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

exec "${VENV_PYTHON}" "${program}" \
  --train_dir="${TRAIN_DIR}" \
  "${checkpoint_flags[@]}" \
  --eval_dir="${EVAL_DIR}" \
  --dataset_name="${DATASET_NAME}" \
  --dataset_dir="${DATASET_DIR}" \
  --batch_size="${BATCH_SIZE}" \
  "$@"
