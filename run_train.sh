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
program=train_image_classifier.py
source "$(dirname "${BASH_SOURCE[0]}")/env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

set_trainer_flags "$@"
# Where all layers are trained no feature stays what it is.
if [[ -n "${CHECKPOINT_PATH}" && -n "${TRAINABLE_SCOPES-the classifier}" ]]; then
  # Seen again and again, the same features are learnt by heart: half of them
  # are left out of each step.
  flags+=(--cache_features --dropout_keep_prob=0.5)
fi

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
if ! { mkdir -p "$(dirname "${LOG_FILE}")" && : >>"${LOG_FILE}"; } 2>/dev/null
then
  echo "run_train.sh: error: cannot write to LOG_FILE=${LOG_FILE}" >&2
  exit 1
fi
seen=$(wc -c <"${LOG_FILE}")
new_log() { tail -c "+$((seen + 1))" "${LOG_FILE}"; }

nohup "${VENV_PYTHON}" -u "${program}" "${flags[@]}" "$@" \
  >>"${LOG_FILE}" 2>&1 </dev/null &
pid=$!
echo "Process ${pid} prepares the training, waiting until it begins"
trap 'echo "Not waiting: process ${pid} goes on; ./stop_train.sh stops it"
  exit 130' INT

# What the trainer refuses shows here, not only in the log. This line of its log
# comes when it has checked all that can be known beforehand.
while ! grep -q 'Training on ' <(new_log); do
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
  watch it:   tail -f $(printf %q "${LOG_FILE}")
  curves:     ./run_tensorboard.sh
  evaluate:   ./run_eval.sh
  stop it:    ./stop_train.sh
TEXT
