#!/usr/bin/env bash
# Fine-tunes ResNet-50 on flowers: the classifier for 3,000
# steps, then all layers for 1,000. Downloads the published checkpoint and the
# flowers if they are missing; see finetune_on_flowers.sh.
#
# usage: [CLASSIFIER_STEPS=3000] [ALL_STEPS=1000] \
#        ./scripts/finetune_resnet_v1_50_on_flowers.sh \
#        [flags of train_image_classifier.py, --help lists them]
set -euo pipefail

MODEL_NAME=resnet_v1_50
: "${CLASSIFIER_STEPS:=3000}" "${ALL_STEPS:=1000}" "${ALL_LEARNING_RATE:=0.001}"
# shellcheck source=scripts/finetune_on_flowers.sh
source "$(dirname "${BASH_SOURCE[0]}")/finetune_on_flowers.sh"
