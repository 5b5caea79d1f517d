#!/usr/bin/env bash
# Converts DATASET_DIR/DATASET_NAME/<class>/* to TFRecord files in DATASET_DIR.
# PHOTOS_DIR=… reads the photos from PHOTOS_DIR/<class>/ instead. flowers,
# cifar10, mnist and visualwakewords are downloaded if they are missing.
#
# usage: [DATASET_NAME=my_flower_5] ./convert_tfrecord.sh [flags of
#        download_and_convert_data.py, --help lists them]
set -euo pipefail
program=download_and_convert_data.py
source "$(dirname "${BASH_SOURCE[0]}")/env_set.sh"
"${PROJECT_DIR}/setup.sh" --quiet

flags=(--dataset_name="${DATASET_NAME}" --dataset_dir="${DATASET_DIR}")
if [[ -n "${PERCENT_VALIDATION}" ]]; then
  flags+=(--percent_validation="${PERCENT_VALIDATION}")
fi
if [[ -n "${PHOTOS_DIR}" ]]; then
  flags+=(--photos_dir="${PHOTOS_DIR}")
fi
if [[ -n "${PHOTOS_LAYOUT}" ]]; then
  flags+=(--photos_layout="${PHOTOS_LAYOUT}")
fi
exec "${VENV_PYTHON}" "${program}" "${flags[@]}" "$@"
