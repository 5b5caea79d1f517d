#!/usr/bin/env bash
# Fine-tunes InceptionV1 on flowers: the classifier for 2,000
# steps, then all layers for 1,000. Downloads the published checkpoint and the
# flowers if they are missing; see finetune_on_flowers.sh.
#
# usage: [CLASSIFIER_STEPS=2000] [ALL_STEPS=1000] \
#        ./scripts/finetune_inception_v1_on_flowers.sh \
#        [flags of train_image_classifier.py, --help lists them]
set -euo pipefail

MODEL_NAME=inception_v1
: "${CLASSIFIER_STEPS:=2000}" "${ALL_STEPS:=1000}" "${ALL_LEARNING_RATE:=0.001}"
# shellcheck source=scripts/finetune_on_flowers.sh
source "$(dirname "${BASH_SOURCE[0]}")/finetune_on_flowers.sh"
