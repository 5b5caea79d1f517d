#!/usr/bin/env bash
# Fine-tunes InceptionV4 on flowers: the classifier for 1,000
# steps, then all layers for 500. Downloads the published checkpoint and the
# flowers if they are missing; see finetune_on_flowers.sh.
#
# usage: [CLASSIFIER_STEPS=1000] [ALL_STEPS=500] \
#        ./scripts/finetune_inception_v4_on_flowers.sh \
#        [flags of train_image_classifier.py, --help lists them]
set -euo pipefail

MODEL_NAME=inception_v4
: "${CLASSIFIER_STEPS:=1000}" "${ALL_STEPS:=500}" "${ALL_LEARNING_RATE:=0.0001}"
# shellcheck source=scripts/finetune_on_flowers.sh
source "$(dirname "${BASH_SOURCE[0]}")/finetune_on_flowers.sh"
