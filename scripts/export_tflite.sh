#!/usr/bin/env bash
# Writes the best checkpoint of TRAIN_DIR, or the newest where training keeps no
# best one and with CHECKPOINT=newest, as a TensorFlow Lite model for phones, to
# EXPORT_DIR, and beside it its labels and the step that it is of. Prints the
# accuracy of the model and of the graph on the validation photos.
#
# usage: [MODEL_NAME=…] [CHECKPOINT=newest] scripts/export_tflite.sh [flags of
#        export_tflite.py, --help lists them]
set -euo pipefail
program=tools/export_tflite.py
# shellcheck source=env_set.sh
source "$(dirname "${BASH_SOURCE[0]}")/../env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

exec "${VENV_PYTHON}" "${program}" \
  --model_name="${MODEL_NAME}" \
  --dataset_name="${DATASET_NAME}" \
  --dataset_dir="${DATASET_DIR}" \
  --dataset_split_name="${EVAL_SPLIT}" \
  --checkpoint_path="${TRAIN_DIR}" \
  "${checkpoint_flags[@]}" \
  --tflite_file="${EXPORT_DIR}/my_${MODEL_NAME}.tflite" \
  "$@"
