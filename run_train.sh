#!/usr/bin/env bash
# Trains in the background: fine-tunes the classifier of MODEL_NAME from
# CHECKPOINT_PATH, or trains all of it from scratch where that is empty.
# The classifier is trained on features that are computed once a photo, and
# evaluated meanwhile; training ends when it no longer gets better, and the best
# checkpoint is in best/ of TRAIN_DIR. --nocache_features trains on the photos.
# TRAINABLE_SCOPES= (empty) fine-tunes all layers; list_models.py has the scopes
# that are taken where none are given.
# Watch it with `tail -f output.log`, stop it with ./stop_train.sh.
#
# usage: [MODEL_NAME=…] [CHECKPOINT_PATH=…] [TRAINABLE_SCOPES=…]
#        [CHECKPOINT_EXCLUDE_SCOPES=…] ./run_train.sh [flags of
#        train_image_classifier.py, --help lists them]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./env_set.sh
./setup.sh --quiet
program=(train_image_classifier.py)
help_if_asked "$@"

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
)
if [[ -n "${CHECKPOINT_PATH}" ]]; then
  flags+=(--checkpoint_path="${CHECKPOINT_PATH}" --train_classifier_only)
  # Given and empty is another thing than not given.
  if [[ -n "${CHECKPOINT_EXCLUDE_SCOPES+given}" ]]; then
    flags+=(--checkpoint_exclude_scopes="${CHECKPOINT_EXCLUDE_SCOPES}")
  fi
  # Where all layers are trained no feature stays what it is.
  if [[ -n "${TRAINABLE_SCOPES-the classifier}" ]]; then
    # Seen again and again, the same features are learnt by heart: half of them
    # are left out of each step.
    flags+=(--cache_features --dropout_keep_prob=0.5)
  fi
fi
if [[ -n "${TRAINABLE_SCOPES+given}" ]]; then
  flags+=(--trainable_scopes="${TRAINABLE_SCOPES}")
fi
if [[ -n "${MAX_NUMBER_OF_STEPS}" ]]; then
  # The end is known: a learning rate that falls to 0 by then ends higher.
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

for argument in "$@"; do
  if [[ "${argument}" =~ ^--?train_dir(=(.*))?$ ]]; then
    echo "run_train.sh: error: give TRAIN_DIR=${BASH_REMATCH[2]} in front of" \
      "the command: ./stop_train.sh and ./run_eval.sh go by it" >&2
    exit 1
  fi
done

# The trainer refuses this too; here it shows before anything goes to the log of
# the one that runs.
pid_file="${TRAIN_DIR}/train.pid"
if [[ -s "${pid_file}" ]] && ! flock --nonblock "${pid_file}" true; then
  echo "run_train.sh: error: process $(cat "${pid_file}") already trains in" \
    "${TRAIN_DIR}; stop it with ./stop_train.sh, or give another TRAIN_DIR" >&2
  exit 1
fi

# The log is continued, so that a resumed run keeps its history; what is waited
# for below must come from this run.
touch "${LOG_FILE}"
seen=$(wc -c <"${LOG_FILE}")
new_log() { tail -c "+$((seen + 1))" "${LOG_FILE}"; }

nohup "${VENV_PYTHON}" -u "${program[@]}" "${flags[@]}" "$@" \
  >>"${LOG_FILE}" 2>&1 </dev/null &
pid=$!
echo "Training as process ${pid}, waiting until it starts"
trap 'echo "Not waiting: process ${pid} goes on; ./stop_train.sh stops it"
  exit 130' INT

# A mistake in a flag shows here, not only in the log.
while ! grep -q 'Starting Queues' <(new_log); do
  if ! kill -0 "${pid}" 2>/dev/null; then
    status=0
    wait "${pid}" || status=$?
    new_log | tail -n 15 >&2
    exit "${status}"
  fi
  sleep 0.5
done
cat <<TEXT
Training as process ${pid} in ${TRAIN_DIR}
  watch it:   tail -f ${LOG_FILE}
  curves:     ./run_tensorboard.sh
  evaluate:   ./run_eval.sh
  stop it:    ./stop_train.sh
TEXT
