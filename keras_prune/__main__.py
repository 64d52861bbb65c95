"""`python -m keras_prune`."""

import sys

from keras_prune.cli import main

if __name__ == "__main__":
    sys.exit(main())
