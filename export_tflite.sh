#!/usr/bin/env bash
# Writes the newest checkpoint of TRAIN_DIR, or with EXPORT=best the one that
# was best on the validation photos, as a TensorFlow Lite model for phones, to
# EXPORT_DIR, and its labels beside it. Prints the accuracy of the model and of
# the graph on the validation photos.
#
# usage: [MODEL_NAME=…] [EXPORT=best] ./export_tflite.sh [flags of
#        export_tflite.py, --help lists them]
set -euo pipefail
program=export_tflite.py
source "$(dirname "${BASH_SOURCE[0]}")/env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

checkpoint=$(checkpoint_folder EXPORT)
exec "${VENV_PYTHON}" "${program}" \
  --model_name="${MODEL_NAME}" \
  --dataset_name="${DATASET_NAME}" \
  --dataset_dir="${DATASET_DIR}" \
  --dataset_split_name="${EVAL_SPLIT}" \
  --checkpoint_path="${checkpoint}" \
  --tflite_file="${EXPORT_DIR}/my_${MODEL_NAME}.tflite" \
  "$@"
