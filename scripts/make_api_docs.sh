#!/usr/bin/env bash
# Writes a page per module from the docstrings, to output/api/index.html.
#
# usage: [ENGINE=tf2] scripts/make_api_docs.sh [flags of pdoc]
set -euo pipefail
# shellcheck source=scripts/engine.sh
source "$(dirname "${BASH_SOURCE[0]}")/engine.sh"
"${PROJECT_DIR}/setup.sh" --dev --quiet

modules=(compat)
for file in "${PROJECT_DIR}"/*/__init__.py; do
  name=$(basename "$(dirname "${file}")")
  [[ "${name}" == tests ]] || modules+=("${name}")
done
"${VENV_PYTHON}" -m pdoc --docformat google \
  --output-directory "${PROJECT_DIR}/output/api" "${modules[@]}" "$@"
echo "Open ${PROJECT_DIR}/output/api/index.html"
