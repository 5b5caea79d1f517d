#!/usr/bin/env bash
# Settings of all scripts, which source this file: names and folders.
# Each is overridable: MODEL_NAME=mobilenet_v1 ./run_train.sh
# No script changes the current folder: a relative path, here or in a flag, is
# relative to that of the user. The defaults are in the project's folder.
# shellcheck shell=bash
# shellcheck disable=SC2034  # used by the scripts that source this

# shellcheck source=scripts/engine.sh
source "$(dirname "${BASH_SOURCE[0]}")/scripts/engine.sh"

# ENGINE: tf1 (TensorFlow 1.15 on Python 3.7) or tf2 (TensorFlow 2). PYTHON: the
# interpreter that ./setup.sh creates the environment with. If they are not set,
# scripts/engine.sh finds both.
# ENGINE PYTHON

# The run, by its name in ./runs.sh; in front of ./run_train.sh also a new name.
# Empty: scripts that use a run take the one whose training was started last,
# unless MODEL_NAME, DATASET_NAME, OUTPUT_DIR or TRAIN_DIR is given. RUNS_DIR
# has the folders of runs.
: "${RUN=}"
: "${RUNS_DIR:=${PROJECT_DIR}/output}"
# shellcheck source=scripts/find_run.sh
source "${PROJECT_DIR}/scripts/find_run.sh"
choose_run

# The network: any name in nets/networks.py.
: "${MODEL_NAME:=inception_v4}"

# Photos are in DATASET_DIR/DATASET_NAME/<class>/, records go to DATASET_DIR.
: "${DATASET_NAME:=my_flower_5}"
: "${DATASET_DIR:=${PROJECT_DIR}/data}"
# Another folder of photos, which may be read-only; empty: as above.
: "${PHOTOS_DIR=}"
# Layout of the folders of photos: classes, or splits with classes in them; auto
# detects it; empty: as in the last conversion.
: "${PHOTOS_LAYOUT=}"
: "${PERCENT_VALIDATION=}"  # empty: 10, or a public data set's own split

# The published checkpoint that training starts from; empty: from scratch.
: "${CHECKPOINT_PATH=${PROJECT_DIR}/checkpoints/${MODEL_NAME}.ckpt}"
# Comma-separated scopes that are not read from it, and those that are trained.
# Not set: the classifier's, from nets/networks.py; empty: all are read, all
# are trained. They have no default here, so that no scope is defined twice.
# CHECKPOINT_EXCLUDE_SCOPES TRAINABLE_SCOPES

# Output of training, evaluation and export.
: "${OUTPUT_DIR:=${RUNS_DIR}/${RUN:-${DATASET_NAME}_${MODEL_NAME}}}"
: "${TRAIN_DIR:=${OUTPUT_DIR}/train}"
: "${EVAL_DIR:=${OUTPUT_DIR}/eval}"
: "${EXPORT_DIR:=${OUTPUT_DIR}/export}"
: "${LOG_FILE:=${PROJECT_DIR}/output.log}"

# Training.
: "${BATCH_SIZE:=32}"
: "${OPTIMIZER:=adam}"
: "${LEARNING_RATE:=0.003}"
# Empty: until it stops improving, if it is evaluated during training, as with
# cached features; else until ./stop_train.sh.
: "${MAX_NUMBER_OF_STEPS=}"
: "${SAVE_INTERVAL_SECS:=60}"
# The classifier that is trained: logits, the network's own, as slim does;
# layers, a linear layer over several layers, fitted exactly; layers+kernel, more
# accurate and slower. Empty: auto, layers if features are cached.
: "${HEAD=}"
# How many of the network's last blocks are trained after the classifier, from
# cached activations of the layer below, which takes minutes. Empty: none.
: "${TRAIN_LAST_BLOCKS=}"

# Evaluation: the first of these splits that the data set has (mnist and cifar10
# have only test, visualwakewords val). With an empty interval it is evaluated once.
: "${EVAL_SPLIT:=validation,test,val}"
: "${EVAL_INTERVAL_SECS=60}"

# Which checkpoint of TRAIN_DIR all steps use: best, the most accurate one on
# the validation photos, which training keeps in TRAIN_DIR/best; or newest.
# Empty: the best if training keeps one, else the newest.
: "${CHECKPOINT=}"
for former in EVAL EXPORT; do
  if [[ -n "${!former+given}" ]]; then
    echo "${0##*/}: error: ${former}=${!former}: give CHECKPOINT=best or" \
      "CHECKPOINT=newest in its place; it is for all steps" >&2
    exit 1
  fi
done
unset former
if [[ ! "${CHECKPOINT}" =~ ^(best|newest)?$ ]]; then
  echo "${0##*/}: error: CHECKPOINT is '${CHECKPOINT}', accepted are best and" \
    "newest; --checkpoint_path=PATH takes one checkpoint" >&2
  exit 1
fi
checkpoint_flags=(${CHECKPOINT:+--which_checkpoint="${CHECKPOINT}"})

# What computes forward passes: tensorflow or openvino; and with which numbers:
# float32, bfloat16 or float16. Empty: auto, as --help of the programs says. XLA:
# 1 compiles what TensorFlow computes, for graphics cards.
: "${RUNTIME=}"
: "${PRECISION=}"
: "${XLA=}"
runtime_flags=(${RUNTIME:+--runtime="${RUNTIME}"}
               ${PRECISION:+--precision="${PRECISION}"} ${XLA:+--xla="${XLA}"})

# Export: file names contain the name of the network.
: "${GRAPH_FILE:=${EXPORT_DIR}/my_${MODEL_NAME}.pb}"
: "${FROZEN_FILE:=${EXPORT_DIR}/my_${MODEL_NAME}_freeze.pb}"
: "${LABEL_FILE:=${EXPORT_DIR}/my_${MODEL_NAME}_freeze.label}"

# Folder in which the server puts corrections, see docs/server.md; empty: it
# accepts none.
: "${INBOX=}"

# Server and TensorBoard.
: "${SERVER_HOST:=0.0.0.0}"
: "${SERVER_PORT:=5001}"
: "${UPLOAD_FOLDER:=/tmp/upload}"
: "${TENSORBOARD_HOST:=0.0.0.0}"
: "${TENSORBOARD_PORT:=6006}"

# Exits with status 1 if no network has the name MODEL_NAME. The programs check
# it too, but only after TensorFlow is loaded.
check_network() {
  local table="${PROJECT_DIR}/nets/networks.py" names
  if [[ ! -e "${table}" ]]; then
    return
  fi
  mapfile -t names < <(
    sed -n "/^NETWORKS/,/^}/s/^    '\(\w*\)': .*/\1/p" "${table}")
  if [[ " ${names[*]} " == *" ${MODEL_NAME} "* ]]; then
    return
  fi
  if [[ ! -x "${VENV_PYTHON}" ]]; then  # Before ./setup.sh.
    echo "${0##*/}: error: unknown network '${MODEL_NAME}'; known: ${names[*]}" >&2
    exit 1
  fi
  PYTHONPATH="${PROJECT_DIR}" "${VENV_PYTHON}" -c 'import sys
from common import errors
script, name, *known = sys.argv[1:]
sys.exit("%s: error: %s" % (script, errors.unknown_name("network", name, known)))
' "${0##*/}" "${MODEL_NAME}" "${names[@]}"
}

# Unless an argument names a frozen graph: makes FROZEN_FILE if it is missing or
# CHECKPOINT is set, and adds to `checkpoint_flags` what it must be made from.
freeze_if_needed() {
  if [[ " $* " == *-frozen_file* ]]; then
    return
  fi
  if [[ -n "${CHECKPOINT}" || ! -e "${FROZEN_FILE}" ]]; then
    "${PROJECT_DIR}/export_freeze.sh"
  fi
  if [[ -d "${TRAIN_DIR}" ]]; then
    checkpoint_flags+=(--checkpoint_path="${TRAIN_DIR}")
  fi
}

# Sets `flags`, the trainer's flags for the settings above, with or without a
# checkpoint. The arguments are those of the script.
set_trainer_flags() {
  local argument
  check_network
  for argument in "$@"; do
    if [[ "${argument}" =~ ^--?train_dir(=(.*))?$ ]]; then
      echo "${0##*/}: error: give TRAIN_DIR=${BASH_REMATCH[2]} in front of the" \
        "command: ./stop_train.sh and ./run_eval.sh read it, too" >&2
      exit 1
    fi
  done
  flags=(
    --train_dir="${TRAIN_DIR}"
    --dataset_name="${DATASET_NAME}"
    --dataset_split_name=train
    --dataset_dir="${DATASET_DIR}"
    --model_name="${MODEL_NAME}"
    --batch_size="${BATCH_SIZE}"
    --optimizer="${OPTIMIZER}"
    --learning_rate="${LEARNING_RATE}"
    --save_interval_secs="${SAVE_INTERVAL_SECS}"
    --save_summaries_secs=120
    --head="${HEAD:-auto}"
    ${TRAIN_LAST_BLOCKS:+--train_last_blocks="${TRAIN_LAST_BLOCKS}"}
    "${runtime_flags[@]}"
  )
  if [[ -n "${CHECKPOINT_PATH}" ]]; then
    flags+=(--checkpoint_path="${CHECKPOINT_PATH}" "${checkpoint_flags[@]}"
            --train_classifier_only)
    # Set to an empty value is different from not set.
    if [[ -n "${CHECKPOINT_EXCLUDE_SCOPES+given}" ]]; then
      flags+=(--checkpoint_exclude_scopes="${CHECKPOINT_EXCLUDE_SCOPES}")
    fi
  fi
  if [[ -n "${TRAINABLE_SCOPES+given}" ]]; then
    flags+=(--trainable_scopes="${TRAINABLE_SCOPES}")
  fi
  if [[ -n "${MAX_NUMBER_OF_STEPS}" ]]; then
    # The end is known: decaying the learning rate to 0 gives better accuracy.
    flags+=(
      --max_number_of_steps="${MAX_NUMBER_OF_STEPS}"
      --learning_rate_decay_type=polynomial
      --learning_rate_decay_steps="${MAX_NUMBER_OF_STEPS}"
      --end_learning_rate=0
      --early_stop_evals=0
    )
  else
    flags+=(--learning_rate_decay_type=fixed)
  fi
}

# Trains like ./run_train.sh with these arguments, shows the log, and returns
# when training has ended; exits with status 1 if it ended early. If
# interrupted, it stops the training, which saves a last checkpoint.
train_to_the_end() {
  local pid
  trap '"${PROJECT_DIR}/stop_train.sh"' EXIT
  "${PROJECT_DIR}/run_train.sh" "$@"
  pid=$(cat "${TRAIN_DIR}/train.pid" 2>/dev/null || true)
  if [[ -n "${pid}" ]]; then
    tail -n 0 -f --pid="${pid}" "${LOG_FILE}"
  fi
  trap - EXIT
  if ! grep -qE 'Finished training|nothing to do' <(tail -n 5 "${LOG_FILE}"); then
    echo "${0##*/}: error: training ended early; the reason is at the end of" \
      "$(relative "${LOG_FILE}")" >&2
    exit 1
  fi
}
