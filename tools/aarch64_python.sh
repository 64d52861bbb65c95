#!/bin/sh
# Python 3.11 for AArch64 with LiteRT, under qemu; tools/setup.sh aarch64 unpacks it.
root=$(cd "$(dirname "$0")/.." && pwd)/build/aarch64-root
PYTHONPATH=$root/site-packages PYTHONHASHSEED=0 \
  exec qemu-aarch64 -cpu cortex-a76 -L "$root" "$root/usr/bin/python3.11" "$@"
