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
program=(-m tools.tensorboard_quietly)
help_if_asked "$@"

# A folder of links names the two curves, wherever the folders are. TensorBoard
# has flags for this; 1.15 and 2 call them differently.
logs="${OUTPUT_DIR}/tensorboard"
mkdir -p "${logs}"
ln -sfn "$(realpath -m "${TRAIN_DIR}")" "${logs}/train"
ln -sfn "$(realpath -m "${EVAL_DIR}")" "${logs}/eval"

exec "${VENV_PYTHON}" "${program[@]}" \
  --logdir="${logs}" \
  --port="${TENSORBOARD_PORT}" \
  "$@"
