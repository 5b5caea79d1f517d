#!/usr/bin/env bash
# Downloads a published checkpoint into checkpoints/, where the other scripts
# find it. MODEL is a network (mobilenet_v1) or a checkpoint's own name
# (mobilenet_v1_1.0_192); if omitted, MODEL_NAME. An archive that is already
# there is used without a download. Can be interrupted and run again.
#
# usage: scripts/download_checkpoint.sh [MODEL] [flags of download_checkpoint.py]
set -euo pipefail
program=tools/download_checkpoint.py
# shellcheck source=env_set.sh
source "$(dirname "${BASH_SOURCE[0]}")/../env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

exec "${VENV_PYTHON}" "${program}" --model_name="${MODEL_NAME}" "$@"
