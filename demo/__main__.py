"""`python -m demo`: the whole path on Fashion-MNIST."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep standard error, also that of libraries, to show it only if something fails."""
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(kept, said.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def start() -> None:
    """Load TensorFlow without what it tells of the machine."""
    # Faster depthwise convolutions, which are much of the training; Keras's predictions are then oneDNN's.
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    # TensorFlow tells of the GPU drivers that it does not find, whatever the log level.
    with _quiet():
        import tensorflow as tf

        tf.config.list_logical_devices()


if __name__ == "__main__":
    print("Starting TensorFlow ...", flush=True)
    start()
    from demo.pipeline import main

    sys.exit(main())
