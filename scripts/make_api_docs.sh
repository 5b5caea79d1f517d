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
# pdoc warns of values that equal a variable of the environment, as the project's
# folder can equal PWD; and of annotations of members that classes inherit from
# Flask and Pillow, which import some types for type checkers alone.
env --unset=PWD --unset=OLDPWD \
  "${VENV_PYTHON}" -W ignore::UserWarning:pdoc.doc_types \
  -m pdoc --docformat google \
  --output-directory "${PROJECT_DIR}/output/api" "${modules[@]}" "$@"
echo "Open ${PROJECT_DIR}/output/api/index.html"
