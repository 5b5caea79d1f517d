#!/usr/bin/env bash
# Shows the curves of training and evaluation on port 6006 of this machine;
# --bind_all lets others see them too.
#
# usage: [MODEL_NAME=…] [TENSORBOARD_PORT=6006] ./run_tensorboard.sh [flags of
#        tensorboard, --help lists them]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./env_set.sh
./setup.sh --quiet
program=(-m tensorboard.main)
help_if_asked "$@"

exec "${VENV_PYTHON}" "${program[@]}" \
  --logdir="train:${TRAIN_DIR},eval:${EVAL_DIR}" \
  --port="${TENSORBOARD_PORT}" \
  "$@"
