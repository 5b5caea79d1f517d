#!/usr/bin/env bash
# Evaluates the best checkpoint of TRAIN_DIR on the validation photos (or, as of
# mnist and cifar10, the test ones: see EVAL_SPLIT), then each better one; the
# newest, then each new one, where training keeps no best one and with
# CHECKPOINT=newest. EVAL_INTERVAL_SECS= (empty) evaluates once.
#
# usage: [MODEL_NAME=…] [EVAL_SPLIT=validation,test] [EVAL_INTERVAL_SECS=60] \
#        [CHECKPOINT=newest] ./run_eval.sh \
#        [flags of eval_image_classifier.py, --help lists them]
set -euo pipefail
program=eval_image_classifier.py
source "$(dirname "${BASH_SOURCE[0]}")/env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

flags=(
  --checkpoint_path="${TRAIN_DIR}"
  "${checkpoint_flags[@]}"
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
