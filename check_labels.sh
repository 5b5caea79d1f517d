#!/usr/bin/env bash
# Checks the photos and labels of the run in TRAIN_DIR: suspect labels, near
# duplicates, outliers, classes that look alike. Writes TRAIN_DIR/labels.html, on
# which you choose what to do with each photo, and TRAIN_DIR/labels.csv.
# --apply=choices.csv carries out the choices: it moves photos within the folder
# of photos; then run ./convert_tfrecord.sh again.
#
# usage: [RUN=…] [MODEL_NAME=…] [CHECKPOINT=newest] ./check_labels.sh \
#        [--apply=FILE] [flags of check_labels.py, --help lists them]
set -euo pipefail
program=tools/check_labels.py
uses_run=1
source "$(dirname "${BASH_SOURCE[0]}")/env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

# Several threads for these small matrices wait for each other beside other work.
OPENBLAS_NUM_THREADS=1 exec "${VENV_PYTHON}" "${program}" \
  --train_dir="${TRAIN_DIR}" \
  "${checkpoint_flags[@]}" \
  --dataset_name="${DATASET_NAME}" \
  --dataset_dir="${DATASET_DIR}" \
  --batch_size="${BATCH_SIZE}" \
  "${runtime_flags[@]}" \
  "$@"
