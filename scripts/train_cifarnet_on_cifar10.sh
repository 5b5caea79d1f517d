#!/usr/bin/env bash
# Trains CifarNet on CIFAR-10 from scratch, like slim's example, and evaluates
# it on the test photos. Downloads CIFAR-10 if it is missing. After an
# interruption, run it again to continue.
#
# usage: [STEPS=100000] ./scripts/train_cifarnet_on_cifar10.sh \
#        [flags of train_image_classifier.py, --help lists them]
set -euo pipefail

MODEL_NAME=cifarnet DATASET_NAME=cifar10
: "${STEPS:=100000}" "${BATCH_SIZE:=128}" "${LEARNING_RATE:=0.1}"
train_flags=(
  --weight_decay=0.004 --learning_rate_decay_type=exponential
  --learning_rate_decay_factor=0.1 --num_epochs_per_decay=200
)
# shellcheck source=scripts/train_from_scratch.sh
source "$(dirname "${BASH_SOURCE[0]}")/train_from_scratch.sh"
