#!/bin/sh
# Everything that clipnlc does on an accelerator, measured within eight minutes; see device.py.
# Options go to device.py: --seconds 100, --architectures RN50,ViT-B-32, --images 500, --out FILE.
cd "$(dirname "$0")/.." || exit
PYTHONPATH=$PWD exec "${PYTHON:-python3}" benchmarks/device.py "$@"
