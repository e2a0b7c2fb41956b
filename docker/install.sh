#!/bin/sh
# The one install recipe: the Makefile, both Dockerfiles and CI run this.
#   docker/install.sh PYTHON WHAT        e.g. docker/install.sh .venv/bin/python '.[dev]'
# PyTorch comes first and pinned: a range that is resolved later is then satisfied and nothing larger is fetched.
# TORCH_INDEX_URL chooses another build of it (the CUDA image does).
set -eu
python=$1
what=$2
torch=$(grep '^torch==' constraints.txt)
"$python" -m pip install --quiet --disable-pip-version-check ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} "$torch"
"$python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable "$what"
