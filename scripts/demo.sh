#!/bin/sh
# One video from a prompt with the model that lies in the package, and what a program reads in its pixels.
# Usage: scripts/demo.sh "a red circle moves right" 0
set -eu
cd "$(dirname "$0")/.."
video=outputs/demo.mp4
rm -f "$video" "${video%.mp4}.json" # a finished video would be kept, and the demo shows the work

begin=$(date +%s)
.venv/bin/contentv generate "$1" --seed "$2" --out "$video" >/dev/null
end=$(date +%s)

printf '\nprompt:  %s\nvideo:   %s (%s s from command to file)\nin it:\n' "$1" "$PWD/$video" "$((end - begin))"
.venv/bin/contentv toyworld read "$video"
