#!/usr/bin/env bash
# Turns DATASET_DIR/DATASET_NAME/<class>/* into TFRecord files in DATASET_DIR.
#
# usage: [DATASET_NAME=my_flower_5] ./convert_tfrecord.sh [flags of
#        download_and_convert_data.py, --help lists them]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./env_set.sh
./setup.sh --quiet
program=(download_and_convert_data.py)
help_if_asked "$@"

exec "${VENV_PYTHON}" "${program[@]}" \
  --dataset_name="${DATASET_NAME}" \
  --dataset_dir="${DATASET_DIR}" \
  --percent_validation="${PERCENT_VALIDATION}" \
  "$@"
