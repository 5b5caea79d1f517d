#!/usr/bin/env bash
# Stops the training that ./run_train.sh started in TRAIN_DIR and waits until
# its last checkpoint is written.
#
# usage: [RUN=…] [MODEL_NAME=…] [TRAIN_DIR=…] [STOP_TIMEOUT_SECS=600] \
#        ./stop_train.sh
set -euo pipefail
[[ -n "${RUN:-}" ]] || uses_run=1
source "$(dirname "${BASH_SOURCE[0]}")/env_set.sh"
# A new run has no run.json yet, so any name was accepted above.
[[ -z "${RUN}" || -e "${TRAIN_DIR}/train.pid" ]] || uses_run=1 ask_for_run

if [[ $# -gt 0 ]]; then
  echo "stop_train.sh: error: unknown argument $1; see --help" >&2
  exit 1
fi

# The trainer keeps this file locked, so a stale process id is never signaled.
if ! { exec 9<"${TRAIN_DIR}/train.pid"; } 2>/dev/null ||
  flock --shared --nonblock 9 || ! read -r pid <&9; then
  echo "No training is running in $(relative "${TRAIN_DIR}")"
  exit 0
fi
kill -TERM "${pid}"
echo "Asked process ${pid} to stop; it saves a last checkpoint"
if ! flock --shared --timeout "${STOP_TIMEOUT_SECS:-600}" 9; then
  echo "stop_train.sh: error: process ${pid} still runs; kill -9 ${pid} loses" \
    "the steps since its last checkpoint" >&2
  exit 1
fi
echo "Stopped"
