#!/usr/bin/env bash
# Serves TensorBoard, with the curves of training and evaluation, on port 6006.
# --logdir=output shows all runs in that folder.
# Like ./server.sh, it listens on all addresses of the machine;
# TENSORBOARD_HOST=127.0.0.1 restricts it to this machine.
#
# usage: [RUN=…] [MODEL_NAME=…] [TENSORBOARD_PORT=6006] [TENSORBOARD_HOST=0.0.0.0]
#        ./run_tensorboard.sh [flags of tensorboard, --help lists them]
set -euo pipefail
program=tools/tensorboard_quietly.py
[[ " $*" == *" --logdir"* ]] || uses_run=1
source "$(dirname "${BASH_SOURCE[0]}")/env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

echo "run_tensorboard.sh:${uses_run:+ train is $(relative "${TRAIN_DIR}"), eval is $(relative "${EVAL_DIR}");}" \
  "--host=${TENSORBOARD_HOST}, TENSORBOARD_HOST=127.0.0.1 changes that" >&2
exec "${VENV_PYTHON}" "${program}" \
  --train_dir="${TRAIN_DIR}" \
  --eval_dir="${EVAL_DIR}" \
  --host="${TENSORBOARD_HOST}" \
  --port="${TENSORBOARD_PORT}" \
  "$@"
