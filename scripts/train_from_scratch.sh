#!/usr/bin/env bash
# Trains MODEL_NAME from scratch on DATASET_NAME for STEPS steps with plain
# gradient descent, and evaluates it: the common part of the train_*.sh here.
#
# usage: MODEL_NAME=… DATASET_NAME=… STEPS=… ./scripts/train_from_scratch.sh \
#        [flags of train_image_classifier.py, --help lists them]
set -euo pipefail
: "${OPTIMIZER:=sgd}"
CHECKPOINT_PATH=
program=train_image_classifier.py
# shellcheck source=env_set.sh
source "$(dirname "${BASH_SOURCE[0]}")/../env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet
if [[ -z "${STEPS:-}" ]]; then
  echo "train_from_scratch.sh: error: give STEPS=… in front of the command" >&2
  exit 1
fi

export MODEL_NAME DATASET_NAME DATASET_DIR CHECKPOINT_PATH TRAIN_DIR EVAL_DIR
export LOG_FILE BATCH_SIZE OPTIMIZER LEARNING_RATE
export MAX_NUMBER_OF_STEPS='' EVAL_INTERVAL_SECS=''

"${PROJECT_DIR}/convert_tfrecord.sh"
# The learning rate is constant: MAX_NUMBER_OF_STEPS would decay it to 0.
# shellcheck disable=SC2154  # train_flags: of the script that sources this
train_to_the_end --max_number_of_steps="${STEPS}" --log_every_n_steps=100 \
  "${train_flags[@]}" "$@"
"${PROJECT_DIR}/run_eval.sh"
