"""`python -m demo`: the whole path on Fashion-MNIST."""

from __future__ import annotations

import os
import sys

# Faster depthwise convolutions, which is most of the training; Keras's predictions are then oneDNN's.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from demo.pipeline import main

if __name__ == "__main__":
    sys.exit(main())
