#!/usr/bin/env bash
# Trains in the background: fine-tunes the classifier of MODEL_NAME from
# CHECKPOINT_PATH, or trains the whole network from scratch if that is empty.
# The classifier, a linear layer over several layers, is fitted to features that
# are computed once per photo; HEAD=logits trains the network's own until it no
# longer improves. The best checkpoint is in TRAIN_DIR/best. --nocache_features
# trains on the photos.
# TRAINABLE_SCOPES= (empty) fine-tunes all layers; tools.list_models has the
# default scopes.
# Watch it with `tail -f output.log`, stop it with ./stop_train.sh.
#
# usage: [MODEL_NAME=…] [CHECKPOINT_PATH=…] [HEAD=…] [TRAIN_LAST_BLOCKS=…]
#        [TRAINABLE_SCOPES=…] [CHECKPOINT_EXCLUDE_SCOPES=…] ./run_train.sh [flags of
#        train_image_classifier.py, --help lists them]
set -euo pipefail
program=train_image_classifier.py
source "$(dirname "${BASH_SOURCE[0]}")/env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

set_trainer_flags "$@"
# If all layers are trained, no features stay fixed, so none can be cached.
if [[ -n "${CHECKPOINT_PATH}" && -n "${TRAINABLE_SCOPES-the classifier}" ]]; then
  # Training on the same features again and again overfits: dropout omits half of
  # them in each step.
  flags+=(--cache_features --dropout_keep_prob=0.5)
fi

# The trainer refuses this too, but only after writing to the log of the running
# one.
pid_file="${TRAIN_DIR}/train.pid"
if [[ -s "${pid_file}" ]] && ! flock --nonblock "${pid_file}" true; then
  echo "run_train.sh: error: process $(cat "${pid_file}") already trains in" \
    "$(relative "${TRAIN_DIR}"); stop it with ./stop_train.sh, or give another TRAIN_DIR" >&2
  exit 1
fi

# The log is appended to, so that a resumed run keeps its history; only lines of
# this run count below.
if ! { mkdir -p "$(dirname "${LOG_FILE}")" && : >>"${LOG_FILE}"; } 2>/dev/null
then
  echo "run_train.sh: error: cannot write to LOG_FILE=$(relative "${LOG_FILE}")" >&2
  exit 1
fi
seen=$(wc -c <"${LOG_FILE}")
new_log() { tail -c "+$((seen + 1))" "${LOG_FILE}"; }

nohup "${VENV_PYTHON}" -u "${program}" "${flags[@]}" "$@" \
  >>"${LOG_FILE}" 2>&1 </dev/null &
pid=$!
trap 'remember_run
  echo "Not waiting: process ${pid} continues;" \
    "TRAIN_DIR=$(printf %q "$(relative "${TRAIN_DIR}")") ./stop_train.sh stops it"
  exit 130' INT
echo "Process ${pid} is preparing training; waiting until it begins"

# Errors of the trainer are shown here, not only in the log. It logs this line
# after all checks that are possible before training.
while ! grep -q 'Training on ' <(new_log); do
  if ! kill -0 "${pid}" 2>/dev/null; then
    status=0
    wait "${pid}" || status=$?
    new_log | tail -n 15 >&2
    [[ "${status}" != 0 ]] || remember_run  # It had all its steps.
    exit "${status}"
  fi
  sleep 0.5
done
remember_run
cat <<TEXT
Training as process ${pid} in $(relative "${TRAIN_DIR}")
  watch it:   tail -f $(printf %q "$(relative "${LOG_FILE}")")
  curves:     ./run_tensorboard.sh
  evaluate:   ./run_eval.sh
  stop it:    ./stop_train.sh
TEXT
