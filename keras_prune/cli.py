"""The command line tool `keras-prune`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_prune.tflite.convert import MIN_ZEROS
from keras_prune.tflite.encodings import ENCODINGS
from keras_prune.tflite.inspect import LayerInfo

EXIT_OK, EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool.

    Args:
        arguments: the command line, without the program's name; by default this process's own.

    Returns:
        0; 1 where a file is missing, damaged or cannot be converted (standard error says why); 2 for a wrong command
        line; 130 when interrupted. A file is written whole or not at all.
    """
    try:
        parsed = _parser().parse_args(arguments)
    except SystemExit as exit_:  # argparse leaves this way, after its message
        return int(exit_.code or 0)
    try:
        report = parsed.run(parsed)
        _say(report, parsed.json)
        sys.stdout.flush()
        return EXIT_OK
    except BrokenPipeError:  # whoever reads the table has seen enough; what is left in the buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        print("keras-prune: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (ValueError, TypeError, OSError, ImportError) as error:
        where = "" if isinstance(error, OSError) else f"{parsed.model}: "
        print(f"keras-prune: {where}{error}", file=sys.stderr)
        return EXIT_FAILURE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="keras-prune", description="Convert pruned models to block-sparse .tflite files, and look into them."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    convert = commands.add_parser("convert", help="convert a Keras model or a dense .tflite to a block-sparse .tflite")
    convert.add_argument("model", type=Path, help="a .keras or .h5 file, or a dense .tflite")
    convert.add_argument("-o", "--output", type=Path, required=True, help="the .tflite to write")
    convert.add_argument("--dense", action="store_true", help="write the dense counterpart instead")
    convert.add_argument(
        "--batch-size", type=_batch_size, default=1, metavar="N", help="1 by default; 'none' leaves it open"
    )
    convert.add_argument(
        "--min-zeros",
        type=_share,
        default=MIN_ZEROS,
        metavar="SHARE",
        help="layers of which less can be left out stay dense (default: %(default)s)",
    )
    convert.add_argument(
        "--structures",
        type=_structures,
        metavar="NAME[,NAME]",
        help=f"structures to choose from (default: all of {', '.join(ENCODINGS)})",
    )
    convert.set_defaults(run=_convert)

    densify = commands.add_parser("densify", help="turn a block-sparse .tflite back into builtin operators")
    densify.add_argument("model", type=Path, help="a .tflite")
    densify.add_argument("-o", "--output", type=Path, required=True, help="the .tflite to write")
    densify.set_defaults(run=_densify)

    inspect = commands.add_parser("inspect", help="list the layers of a .tflite")
    inspect.add_argument("model", type=Path, help="a .tflite")
    inspect.set_defaults(run=_inspect)

    for command in (convert, densify, inspect):
        command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _batch_size(text: str) -> int | None:
    if text.lower() == "none":
        return None
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is no batch size; expected a positive integer or 'none'")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0.0 <= value < 1.0:
        raise argparse.ArgumentTypeError(f"{value} is not in [0, 1)")
    return value


def _structures(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in ENCODINGS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown) or '(none)'}; expected {', '.join(ENCODINGS)}")
    return names


def _convert(arguments: argparse.Namespace) -> dict[str, Any]:
    from keras_prune.tflite import convert

    path: Path = arguments.model
    _check_output(arguments.output)
    model: Any
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix in (".keras", ".h5", ".hdf5"):
        model = _load_keras(path)
    elif path.is_dir():
        raise ValueError("a folder; save the model as .keras, or convert it to a dense .tflite first")
    else:
        model = path.read_bytes()
    data = convert(
        model,
        sparse=not arguments.dense,
        batch_size=arguments.batch_size,
        min_zeros=arguments.min_zeros,
        structures=arguments.structures,
    )
    return _write_and_report(arguments, data)


def _densify(arguments: argparse.Namespace) -> dict[str, Any]:
    from keras_prune.tflite import densify

    _check_output(arguments.output)
    return _write_and_report(arguments, densify(arguments.model.read_bytes()))


def _inspect(arguments: argparse.Namespace) -> dict[str, Any]:
    return _report(arguments.model, arguments.model.read_bytes())


def _load_keras(path: Path) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    return keras.saving.load_model(path, compile=False)


def _check_output(path: Path) -> None:
    """Refuse, before any work, what cannot be written."""
    if path.is_dir():
        raise IsADirectoryError(f"{path}: a folder; name the .tflite to write")
    if not path.resolve().parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder")


def write_file(path: Path, data: bytes) -> None:
    """Write a file aside and rename it, so that nobody ever sees, or is left with, half of it."""
    target = path.resolve()
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # a temporary file is its owner's alone
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _write_and_report(arguments: argparse.Namespace, data: bytes) -> dict[str, Any]:
    report = _report(arguments.output, data)
    write_file(arguments.output, data)
    return report


def _report(path: Path, data: bytes) -> dict[str, Any]:
    from keras_prune.tflite import inspect

    layers = inspect(data)
    sparse = [layer for layer in layers if layer.structure is not None]
    return {
        "file": str(path),
        "file_bytes": len(data),
        "block_sparse_layers": len(sparse),
        "dense_layers": len(layers) - len(sparse),
        "dense_bytes": sum(layer.dense_bytes or 0 for layer in sparse),
        "value_bytes": sum(layer.value_bytes or 0 for layer in sparse),
        "metadata_bytes": sum(layer.metadata_bytes for layer in sparse),
        "layers": layers,
    }


def _say(report: dict[str, Any], as_json: bool) -> None:
    layers: list[LayerInfo] = report["layers"]
    if as_json:
        print(json.dumps({**report, "layers": [layer.as_dict() for layer in layers]}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{report['file']} ({report['file_bytes']:,} bytes)", title_justify="left")
    table.add_column("layer", overflow="fold", ratio=3)
    for heading in ("matrix", "structure", "block"):
        table.add_column(heading)
    for heading in ("zeros", "dense bytes", "values", "metadata"):
        table.add_column(heading, justify="right")
    table.add_column("stays dense because", overflow="fold", ratio=3)
    for layer in layers:
        table.add_row(
            short_name(layer.name),
            "" if layer.rows is None else f"{layer.rows} x {layer.columns}",
            layer.structure or "dense",
            layer.block or "",
            "" if layer.zeros is None else f"{layer.zeros:.1%}",
            "" if layer.dense_bytes is None else f"{layer.dense_bytes:,}",
            "" if layer.value_bytes is None else f"{layer.value_bytes:,}",
            f"{layer.metadata_bytes:,}" if layer.structure else "",
            layer.reason or "",
        )
    # A pipe has no width; tables for it must not be folded to 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 200, soft_wrap=False, highlight=False)
    console.print(table)
    saved, dense = report["value_bytes"] + report["metadata_bytes"], report["dense_bytes"]
    console.print(
        f"{report['block_sparse_layers']} block-sparse layers ({saved:,} of {dense:,} bytes), "
        f"{report['dense_layers']} dense layers"
    )


def short_name(name: str) -> str:
    """Return the first of the names that the TensorFlow converter joined for one operator.

    Example:
        >>> short_name("net/relu/Relu6;net/conv/BiasAdd;net/conv/convolution")
        'net/relu/Relu6'
    """
    return name.split(";")[0]
