#!/usr/bin/env bash
# Evaluates the newest checkpoint of TRAIN_DIR on the validation photos (or, as
# of mnist and cifar10, the test ones: see EVAL_SPLIT), then each new one.
# EVAL_INTERVAL_SECS= (empty) evaluates once. EVAL=best takes the checkpoint that
# was best on the validation photos, then each that is better.
#
# usage: [MODEL_NAME=…] [EVAL_SPLIT=validation,test] [EVAL_INTERVAL_SECS=60] \
#        [EVAL=best] ./run_eval.sh [flags of eval_image_classifier.py, --help lists them]
set -euo pipefail
program=eval_image_classifier.py
source "$(dirname "${BASH_SOURCE[0]}")/env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

checkpoint=$(checkpoint_folder EVAL)
flags=(
  --checkpoint_path="${checkpoint}"
  --eval_dir="${EVAL_DIR}"
  --dataset_name="${DATASET_NAME}"
  --dataset_split_name="${EVAL_SPLIT}"
  --dataset_dir="${DATASET_DIR}"
  --model_name="${MODEL_NAME}"
  --batch_size="${BATCH_SIZE}"
)
if [[ -n "${EVAL_INTERVAL_SECS}" ]]; then
  flags+=(--eval_interval_secs="${EVAL_INTERVAL_SECS}")
fi

exec "${VENV_PYTHON}" "${program}" "${flags[@]}" "$@"
