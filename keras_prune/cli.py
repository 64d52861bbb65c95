"""The command line tool `keras-prune`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_prune import files
from keras_prune.tflite.convert import MIN_ZEROS
from keras_prune.tflite.encodings import ENCODINGS
from keras_prune.tflite.inspect import LayerInfo
from keras_prune.tflite.payoff import Latency

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
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            report = parsed.run(parsed)
        if report is not None:
            _say(report, parsed.json)
        sys.stdout.flush()
        return EXIT_OK
    except BrokenPipeError:  # whoever reads the table has seen enough; what is left in the buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        print("keras-prune: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except SystemExit as exit_:  # a command line that is wrong as a whole
        return int(exit_.code or 0)
    except (ValueError, TypeError, OSError, ImportError) as error:
        where = "" if isinstance(error, OSError) or not getattr(parsed, "model", None) else f"{parsed.model}: "
        print(f"keras-prune: {where}{error}", file=sys.stderr)
        return EXIT_FAILURE


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    print(f"keras-prune: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="keras-prune",
        description="Convert pruned models to block-sparse .tflite files, look into them, and plan how to prune.",
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
    _add_table(convert, "decides which layers become block-sparse, instead of --min-zeros where it has the layer")
    convert.set_defaults(run=_convert)

    densify = commands.add_parser("densify", help="turn a block-sparse .tflite back into builtin operators")
    densify.add_argument("model", type=Path, help="a .tflite")
    densify.add_argument("-o", "--output", type=Path, required=True, help="the .tflite to write")
    densify.set_defaults(run=_densify)

    inspect = commands.add_parser("inspect", help="list the layers of a .tflite")
    inspect.add_argument("model", type=Path, help="a .tflite")
    _add_table(inspect, "gives the layers' latencies, and decides as convert does")
    inspect.set_defaults(run=_inspect)

    for command in (convert, densify, inspect):
        command.add_argument("--json", action="store_true", help="print JSON instead of a table")

    table = commands.add_parser("latency-table", help="measure the latencies of layers that plans are made from")
    table.add_argument("-o", "--output", type=Path, help="the file (default: in the user's cache, by the CPU's name)")
    table.add_argument(
        "--model", type=Path, help="a .keras or .h5 file, whose layers are measured beside the usual ones"
    )
    table.add_argument("--threads", type=int, default=1, help="threads of the delegate (default: %(default)s)")
    table.add_argument(
        "--seconds", type=float, default=0.4, help="running time of each layer, about (default: %(default)s)"
    )
    table.add_argument("--list", action="store_true", help="only print the layers, for the tool on a phone")
    table.add_argument("--from", dest="source", type=Path, help="take what the tool printed on a phone")
    table.add_argument("--cpu", help="name of the phone's CPU, with --from")
    table.set_defaults(run=_latency_table)

    plan = commands.add_parser("plan", help="choose structure, block and zeros of each layer")
    plan.add_argument("model", type=Path, nargs="?", help="a .keras or .h5 file")
    plan.add_argument("--target", help="a speed-up (2.0x), a latency (3.5ms) or a fraction of zeros (80%%)")
    plan.add_argument("-o", "--output", type=Path, help="the JSON file to write")
    plan.add_argument("--table", type=Path, help="the latency table (default: the one measured on this machine)")
    plan.add_argument("--data", choices=("hard", "easy"), default="hard", help="(default: %(default)s)")
    plan.add_argument(
        "--max-zeros", type=_share, default=0.95, metavar="SHARE", help="of a layer (default: %(default)s)"
    )
    plan.add_argument("--force", action="store_true", help="take a table of another CPU or library version")
    plan.add_argument("--method", choices=("rules", "search"), default="rules", help="(default: %(default)s)")
    plan.add_argument(
        "--data-file",
        type=Path,
        metavar="NPZ",
        help="for a search: arrays x and y, and x_val and y_val or else the last fifth to evaluate with",
    )
    plan.add_argument("--trials", type=int, default=50, help="plans that a search tries (default: %(default)s)")
    plan.add_argument("--steps", type=int, default=100, help="training steps for each (default: %(default)s)")
    plan.add_argument("--seed", type=int, default=0, help="of a search (default: %(default)s)")
    plan.add_argument("--oracle", choices=("policy_gradient", "bayesian"), default="policy_gradient")
    plan.add_argument(
        "--directory", type=Path, default=Path("plan-search"), help="where a search goes on (default: %(default)s)"
    )
    plan.add_argument("--explain", type=Path, metavar="PLAN", help="say what a plan gives to each layer, and why")
    plan.set_defaults(run=_plan, error=plan.error)
    return parser


def _add_table(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("--table", type=Path, metavar="FILE", help=f"a latency table, which {what}")
    command.add_argument("--force", action="store_true", help="take a table of another CPU or library version")


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
    rules = {"min_zeros": arguments.min_zeros, "structures": arguments.structures, "latency": _latency(arguments)}
    data = convert(model, sparse=not arguments.dense, batch_size=arguments.batch_size, **rules)
    return _write_and_report(arguments, data, **rules)


def _densify(arguments: argparse.Namespace) -> dict[str, Any]:
    from keras_prune.tflite import densify

    _check_output(arguments.output)
    return _write_and_report(arguments, densify(arguments.model.read_bytes()))


def _inspect(arguments: argparse.Namespace) -> dict[str, Any]:
    return _report(arguments.model, arguments.model.read_bytes(), latency=_latency(arguments))


def _latency(arguments: argparse.Namespace) -> Latency | None:
    from keras_prune.conversion import measured_latency

    return None if arguments.table is None else measured_latency(arguments.table, arguments.force)


def _latency_table(arguments: argparse.Namespace) -> None:
    from keras_prune.mapping import LatencyTable, cpu_name
    from keras_prune.mapping.measure import NATIVE_KINDS, measure_table, points_for, usual_points
    from keras_prune.mapping.table import Point, default_path

    path: Path = arguments.output or default_path(arguments.cpu or cpu_name())
    if arguments.source is not None:
        table = LatencyTable.from_json(arguments.source.read_text(), cpu=arguments.cpu)
        table.save(path)
    else:
        points = usual_points()
        if arguments.model is not None:
            points += points_for(_load_keras(arguments.model))
        if arguments.list:
            print("\n".join(str(point) for point in dict.fromkeys(points) if point.layer.kind in NATIVE_KINDS))
            return

        def say(done: int, wanted: int, point: Point) -> None:
            end = "" if sys.stderr.isatty() else "\n"
            if end == "" or done % 50 == 0:
                print(
                    f"\r\033[K{done} of {wanted}: {point}" if not end else f"{done} of {wanted}",
                    end=end,
                    file=sys.stderr,
                )

        path.parent.mkdir(parents=True, exist_ok=True)
        table = measure_table(points, path, threads=arguments.threads, seconds=arguments.seconds, progress=say)
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)
    print(f"{path}: {len(table.entries)} layers; {table.cpu}, version {table.version}, {table.threads} threads")
    print("error of a layer predicted from the others, half of them and nine tenths of them below:")
    for (layer, structure), error in table.errors().items():
        print(f"  {layer:<10} {structure:<17} {error.median:6.1%} {error.worst_tenth:6.1%}  {error.points} layers")


def _plan(arguments: argparse.Namespace) -> None:
    from keras_prune.mapping.plan import Plan

    if arguments.explain is not None:
        print(Plan.from_json(arguments.explain.read_text()).report())
        return
    if arguments.model is None or arguments.target is None:
        arguments.error("give a model and --target, or --explain with a plan")
    from keras_prune.mapping import LatencyTable, plan

    if arguments.output is not None:
        _check_output(arguments.output)
    if not arguments.model.exists():
        raise FileNotFoundError(f"{arguments.model}: no such file")
    searching = arguments.method == "search"
    made = plan(
        _load_keras(arguments.model, compiled=searching),
        arguments.target,
        LatencyTable.load(arguments.table) if arguments.table is not None else None,
        arguments.method,
        **(_search_options(arguments) if searching else {}),
        data=arguments.data,
        max_zeros=arguments.max_zeros,
        force=arguments.force,
    )
    if arguments.output is not None:
        files.write(arguments.output, made.to_json())
    print(made.report())


def _search_options(arguments: argparse.Namespace) -> dict[str, Any]:
    found = {name: getattr(arguments, name) for name in ("trials", "steps", "seed", "oracle", "directory")}
    if arguments.data_file is None:
        return found
    import numpy as np

    with np.load(arguments.data_file) as file:
        arrays = {name: file[name] for name in file.files}
    if not {"x", "y"} <= set(arrays) or ("x_val" in arrays) != ("y_val" in arrays):
        raise ValueError(
            f"{arguments.data_file} must hold arrays x and y, and both or none of x_val and y_val, but holds "
            f"{', '.join(arrays)}"
        )
    if "x_val" not in arrays:
        end = len(arrays["x"]) - max(1, len(arrays["x"]) // 5)
        for name in ("x", "y"):
            arrays[name], arrays[f"{name}_val"] = arrays[name][:end], arrays[name][end:]
    return {**found, "train": (arrays["x"], arrays["y"]), "validation": (arrays["x_val"], arrays["y_val"])}


def _load_keras(path: Path, compiled: bool = False) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    return keras.saving.load_model(path, compile=compiled)


def _check_output(path: Path) -> None:
    """Refuse, before any work, what cannot be written."""
    if path.is_dir():
        raise IsADirectoryError(f"{path}: a folder; name the .tflite to write")
    if not path.resolve().parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder")


def _write_and_report(arguments: argparse.Namespace, data: bytes, **rules: Any) -> dict[str, Any]:
    report = _report(arguments.output, data, **rules)
    files.write(arguments.output, data)
    return report


def _report(path: Path, data: bytes, **rules: Any) -> dict[str, Any]:
    from keras_prune.tflite import inspect

    layers = inspect(data, **rules)
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
    timed = any(layer.dense_ms is not None for layer in layers)
    for heading in ("zeros", "dense bytes", "values", "metadata", *(("dense ms", "sparse ms") if timed else ())):
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
            *(("" if ms is None else f"{ms:.3g}" for ms in (layer.dense_ms, layer.sparse_ms)) if timed else ()),
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
