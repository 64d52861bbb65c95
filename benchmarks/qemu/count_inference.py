"""Runs in the emulated AArch64 Python: one inference of MODEL between the marks that count_instructions.c looks for.

    count_inference.py MODEL [LIBRARY]

Without a library the runtime's XNNPACK runs the model, with one the delegate does; one thread either way.
"""

import ctypes
import mmap
import struct
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter, load_delegate

RETURN = 0xD65F03C0


class Mark:
    """A call of one instruction, ``hint #number``."""

    def __init__(self, number: int) -> None:
        self.code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self.code.write(struct.pack("<II", 0xD503201F | number << 5, RETURN))
        self.call = ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(self.code)))


def main(model: str, library: str | None = None) -> None:
    delegates = [load_delegate(library, {"num_threads": "1"})] if library else None
    interpreter = Interpreter(model, num_threads=1, experimental_delegates=delegates)
    interpreter.allocate_tensors()
    detail = interpreter.get_input_details()[0]
    values = np.random.default_rng(0).normal(size=detail["shape"]).astype(np.float32)
    interpreter.set_tensor(detail["index"], values)
    interpreter.invoke()
    start, stop = Mark(40), Mark(41)
    start.call()
    interpreter.invoke()
    stop.call()


if __name__ == "__main__":
    main(*sys.argv[1:])
