#!/bin/sh
# Write constraints.txt anew: the newest versions of everything, of all extras, that go together with
# the torch it names. To move torch, change that line by hand first.
set -eu
cd "$(dirname "$0")/.."
torch=$(grep -E '^torch==' constraints.txt)
extras=curate,serve,ray,quant,eval,ui,dev
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"${PYTHON:-python3}" -m venv "$scratch/env"
echo "$torch" >"$scratch/torch"
"$scratch/env/bin/pip" install --quiet "$torch"
"$scratch/env/bin/pip" install --quiet --constraint "$scratch/torch" ".[$extras]"
"$scratch/env/bin/pip" check
{
    grep '^#' constraints.txt
    # A local label such as +cpu would shut out the other builds of the same version.
    "$scratch/env/bin/pip" freeze --exclude contentv | sed -E 's/\+[a-z0-9.]+$//' | sort -f
} >"$scratch/constraints.txt"
mv "$scratch/constraints.txt" constraints.txt
