#!/usr/bin/env bash
# Writes a page per module from the docstrings, to output/api/index.html.
#
# usage: [ENGINE=tf2] scripts/make_api_docs.sh [flags of pdoc]
set -euo pipefail
# shellcheck source=scripts/engine.sh
source "$(dirname "${BASH_SOURCE[0]}")/engine.sh"
cd "${PROJECT_DIR}"
./setup.sh --dev --quiet

packages=()
for file in */__init__.py; do
  [[ "${file}" == tests/* ]] || packages+=("${file%/__init__.py}")
done
"${VENV_PYTHON}" -m pdoc --docformat google --output-directory output/api \
  compat errors common_flags "${packages[@]}" "$@"
echo "Open output/api/index.html"
