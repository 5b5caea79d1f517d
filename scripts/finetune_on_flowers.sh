#!/usr/bin/env bash
# Fine-tunes MODEL_NAME on flowers like slim's examples: downloads its published
# checkpoint and the flowers if they are missing, trains the classifier,
# evaluates, trains all layers, evaluates. After an interruption, run it again
# to continue. For your own photos, set DATASET_NAME and DATASET_DIR.
#
# usage: MODEL_NAME=… [CLASSIFIER_STEPS=1000] [ALL_STEPS=500] \
#        [ALL_LEARNING_RATE=0.0001] ./scripts/finetune_on_flowers.sh \
#        [flags of train_image_classifier.py, --help lists them]
set -euo pipefail
: "${MODEL_NAME:=inception_v3}" "${DATASET_NAME:=flowers}"
: "${CLASSIFIER_STEPS:=1000}" "${ALL_STEPS:=500}"
: "${LEARNING_RATE:=0.01}" "${ALL_LEARNING_RATE:=0.0001}"
: "${OPTIMIZER:=rmsprop}" "${HEAD:=logits}"
program=train_image_classifier.py
# shellcheck source=env_set.sh
source "$(dirname "${BASH_SOURCE[0]}")/../env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

export MODEL_NAME DATASET_NAME DATASET_DIR LOG_FILE BATCH_SIZE OPTIMIZER HEAD
export EVAL_INTERVAL_SECS=
first_dir="${TRAIN_DIR}"

if [[ -n "${CHECKPOINT_PATH}" && ! -e "${CHECKPOINT_PATH}" &&
      ! -e "${CHECKPOINT_PATH}.index" ]]; then
  "${PROJECT_DIR}/scripts/download_checkpoint.sh"
fi
"${PROJECT_DIR}/convert_tfrecord.sh"

# The learning rate is constant, as in slim; MAX_NUMBER_OF_STEPS would decay it.
fine_tune() {
  train_to_the_end --max_number_of_steps="$1" --early_stop_evals=0 \
    --log_every_n_steps=100 "${@:2}"
  "${PROJECT_DIR}/run_eval.sh"
}

export CHECKPOINT_PATH TRAIN_DIR EVAL_DIR LEARNING_RATE MAX_NUMBER_OF_STEPS=
echo "== The classifier of ${MODEL_NAME}, ${CLASSIFIER_STEPS} steps"
fine_tune "${CLASSIFIER_STEPS}" "$@"

echo "== All layers of ${MODEL_NAME}, ${ALL_STEPS} steps"
CHECKPOINT_PATH="${first_dir}"
TRAIN_DIR="${first_dir}/all"
EVAL_DIR="${EVAL_DIR}/all"
LEARNING_RATE="${ALL_LEARNING_RATE}"
export TRAINABLE_SCOPES='' CHECKPOINT_EXCLUDE_SCOPES=''
fine_tune "${ALL_STEPS}" "$@"
