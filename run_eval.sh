#!/usr/bin/env bash
# Evaluates the best checkpoint of TRAIN_DIR, then each better one, on the
# validation photos (for mnist and cifar10 on the test photos: see EVAL_SPLIT).
# If training keeps no best checkpoint, or with CHECKPOINT=newest: the newest,
# then each new one. EVAL_INTERVAL_SECS= (empty) evaluates once. If there is no
# checkpoint and no process trains, ends with an error; --wait_for_run waits.
#
# usage: [RUN=…] [MODEL_NAME=…] [EVAL_SPLIT=validation,test] \
#        [EVAL_INTERVAL_SECS=60] [CHECKPOINT=newest] ./run_eval.sh \
#        [flags of eval_image_classifier.py, --help lists them]
set -euo pipefail
program=eval_image_classifier.py
uses_run=1
source "$(dirname "${BASH_SOURCE[0]}")/env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

check_network
flags=(
  --checkpoint_path="${TRAIN_DIR}"
  "${checkpoint_flags[@]}"
  --eval_dir="${EVAL_DIR}"
  --dataset_name="${DATASET_NAME}"
  --dataset_split_name="${EVAL_SPLIT}"
  --dataset_dir="${DATASET_DIR}"
  --model_name="${MODEL_NAME}"
  --batch_size="${BATCH_SIZE}"
  "${runtime_flags[@]}"
)
if [[ -n "${EVAL_INTERVAL_SECS}" ]]; then
  flags+=(--eval_interval_secs="${EVAL_INTERVAL_SECS}" --nowait_for_run)
fi

exec "${VENV_PYTHON}" "${program}" "${flags[@]}" "$@"
