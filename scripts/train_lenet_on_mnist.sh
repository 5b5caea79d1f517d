#!/usr/bin/env bash
# Trains LeNet on MNIST from scratch, like slim's example, and evaluates it on
# the test photos. Downloads MNIST if it is missing. After an interruption, run
# it again to continue.
#
# usage: [STEPS=20000] ./scripts/train_lenet_on_mnist.sh \
#        [flags of train_image_classifier.py, --help lists them]
set -euo pipefail

MODEL_NAME=lenet DATASET_NAME=mnist
: "${STEPS:=20000}" "${BATCH_SIZE:=50}" "${LEARNING_RATE:=0.01}"
train_flags=(--weight_decay=0)
# shellcheck source=scripts/train_from_scratch.sh
source "$(dirname "${BASH_SOURCE[0]}")/train_from_scratch.sh"
