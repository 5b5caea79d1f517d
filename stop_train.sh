#!/usr/bin/env bash
# Stops the training that ./run_train.sh started in TRAIN_DIR and waits until
# its last checkpoint is written.
#
# usage: [MODEL_NAME=…] [TRAIN_DIR=…] ./stop_train.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./env_set.sh

help_if_asked "$@"
if [[ $# -gt 0 ]]; then
  echo "stop_train.sh: error: unknown argument $1; see --help" >&2
  exit 1
fi

# The trainer holds this file locked: a stale process id stops nobody else.
pid_file="${TRAIN_DIR}/train.pid"
if [[ ! -s "${pid_file}" ]] || flock --nonblock "${pid_file}" true; then
  echo "Nothing trains in ${TRAIN_DIR}"
  exit 0
fi
pid=$(cat "${pid_file}")
kill -TERM "${pid}"
echo "Asked process ${pid} to stop; it saves a last checkpoint"
if ! flock --timeout "${STOP_TIMEOUT_SECS:-600}" "${pid_file}" true; then
  echo "stop_train.sh: error: process ${pid} still runs; kill -9 ${pid} loses" \
    "what it did since its last checkpoint" >&2
  exit 1
fi
echo "Stopped"
