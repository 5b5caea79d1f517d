#!/usr/bin/env bash
# Exports a checkpoint of TRAIN_DIR (the best one, or the newest if training
# keeps no best one or with CHECKPOINT=newest) as a TensorFlow Lite model for
# phones, to EXPORT_DIR, with its labels and its step beside it. Prints the
# accuracy of the model and of the graph on the validation photos. A model of
# float16 has half the size, one of int8 (TensorFlow 2) a quarter, and is faster.
#
# usage: [RUN=…] [MODEL_NAME=…] [CHECKPOINT=newest] [ENGINE=tf2] \
#        scripts/export_tflite.sh [--quantize=float16|int8] \
#        [flags of export_tflite.py, --help lists them]
set -euo pipefail
program=tools/export_tflite.py
uses_run=1
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
  "${runtime_flags[@]}" \
  "$@"
