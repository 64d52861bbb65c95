"""Measuring single layers with the delegate, each in a small `.tflite` of its own."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_prune.mapping.table import LatencyTable, Point, default_path
from keras_prune.mapping.workload import parse_scheme, uses
from keras_prune.mapping.yardstick import YARDSTICKS, at_reference, in_turns, reference
from keras_prune.structures import AlignedBlock
from keras_prune.tflite import convert, flatbuffer, load_delegate
from keras_prune.tflite.delegate import _runtime_module
from keras_prune.tflite.layer import DENSE, Layer

# Channels that the delegate's own layers around the measured one lead from and to.
_LEAD, _TAIL = 4, 8
# Points that are measured in turns: the longer a turn of all of them, the more of the machine's speeds they meet.
_BATCH, _BATCH_BYTES = 8, 100_000_000
_REFERENCE_SECONDS = 5.0
_TIME = re.compile(r"^block_sparse: +([\d.]+) us +(\w+) ->", re.MULTILINE)
_LAYOUT = ("to_planar", "to_interleaved", "reshape")

SECONDS = 0.4
"""Spent on running each point, and the yardsticks beside it."""
NATIVE_KINDS = ("conv", "depthwise", "dense")
"""Kinds of layers that the delegate's tool `latency_table` can time."""
IMAGES = (112, 56, 28, 14, 7)
"""Heights and widths that the usual table has."""
RATES = (0.1, 0.3, 0.6, 0.8, 0.95)
"""Fractions of zeros that it has; zeros begin to pay near the lesser ones."""
_LEAST_ZEROS = {"pattern": 5 / 9}  # with which a structure leaves out no more than asked for
_BLOCKS = ("unaligned_block:2", "unaligned_block:4", "unaligned_block:8", "unaligned_block:16")
SCHEMES = {
    "conv1x1": (*_BLOCKS, "block_punched:4x4", "block_punched:8x4", "block_punched:16x4"),
    "conv3x3": (*_BLOCKS, "block_punched:4x4", "block_punched:8x4", "block_punched:16x4", "pattern:8"),
    "dense": (*_BLOCKS, "block_row_column:4x32", "block_row_column:8x32", "block_row_column:16x32"),
}
"""Structures and blocks that it has, by type of layer."""


def cpu_name() -> str:
    """Return the name of this machine's CPU."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Hardware", "CPU part") and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def usual_points() -> list[Point]:
    """List what the usual table has: the sizes that networks for images of 224 x 224 pixels are made of."""
    layers = []
    for image in IMAGES:
        base = 3584 // image
        pairs = [(base, base), (base, 4 * base), (4 * base, base), (base // 2, 2 * base)]
        layers += [Layer("conv", image, image, c, f) for c, f in pairs]
        layers += [Layer("conv", image, image, base, f, (1, 1), 2) for f in (base // 2, 2 * base)]
        layers += [Layer("depthwise", image, image, c, c, (3, 3), s) for c in (base, 2 * base) for s in (1, 2)]
        layers += [Layer("add", image, image, base, base), Layer("max_pool", image, image, base, base, (2, 2), 2)]
        layers.append(Layer("mean", image, image, base, base))
        layers += [Layer("conv", image, image, base // 2, base // 2, (3, 3))]
        layers += [Layer("conv", image, image, base, base, (3, 3), stride) for stride in (1, 2)]
    layers += [Layer("conv", 224, 224, 3, 32, (3, 3), stride) for stride in (1, 2)]
    layers += [Layer("conv", 224, 224, 3, 64, (7, 7), 2), Layer("conv", 112, 112, 128, 128, (3, 3))]
    layers += [Layer("conv", 28, 28, 512, 512, (3, 3)), Layer("max_pool", 112, 112, 64, 64, (3, 3), 2)]
    # Inverted residual blocks are narrower than others, and wider inside.
    narrow = [(image, 896 // image) for image in IMAGES]
    layers += [Layer("conv", i, i, c, f) for i, n in narrow for c, f in ((n, 6 * n), (6 * n, n))]
    # Residual networks have wide images: too large for a cache to add, and copied before a stride.
    layers += [Layer("add", image, image, 14336 // image, 14336 // image) for image in IMAGES]
    wide = [(image, 14336 // image) for image in IMAGES[1:4]]
    layers += [Layer("conv", i, i, w, f, (1, 1), 2) for i, w in wide for f in (w // 2, 2 * w)]
    sizes = [(256, 256), (512, 512), (1024, 1000), (2048, 1000), (2048, 2048), (4096, 4096)]
    layers += [Layer("dense", 1, 1, inputs, outputs) for inputs, outputs in sizes]
    # All sizes at all rates would take three times as long and say no more: the law joins them.
    return [point for turn, layer in enumerate(layers) for point in points_of(layer, turn)]


def points_for(model: Any) -> list[Point]:
    """List the points of a Keras model's own layers, to measure them beside or instead of the usual ones.

    Raises:
        ValueError: the model does not know its layers' sizes.
    """
    layers = dict.fromkeys(use.layer for use in uses(model))
    # Each block at two rates, one less and one more: between them a layer's own latencies are interpolated.
    pairs = [(layer, turn + more) for turn, layer in enumerate(layers) for more in (0, 2)]
    return list(dict.fromkeys(point for layer, turn in pairs for point in points_of(layer, turn)))


def points_of(layer: Layer, turn: int = 0) -> list[Point]:
    """List the points of one layer: dense, and each structure and block at one rate, the next rate in the next turn."""
    points = [Point(layer)]
    if layer.channels > 4:
        for i, scheme in enumerate(SCHEMES.get(layer.family, ())):
            structure = parse_scheme(scheme)
            columns = layer.channels * layer.kernel[0] * layer.kernel[1]
            if structure is not None and structure.obstacle(layer.filters, columns, layer.kernel) is None:
                rates = [rate for rate in RATES if rate >= _LEAST_ZEROS.get(structure.name, 0.0)]
                points.append(Point(layer, scheme, rates[(i + turn) % len(rates)]))
    return points


def measure_table(
    points: Iterable[Point],
    path: str | os.PathLike[str] | None = None,
    *,
    threads: int = 1,
    seconds: float = SECONDS,
    library: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int, Point], None] = lambda done, all_, point: None,
) -> LatencyTable:
    """Measure points with the delegate on this machine.

    Each run stands between runs of two yardsticks (:mod:`keras_prune.mapping.yardstick`), so that all latencies are
    those of a machine as quick as in the first seconds of the measurement, whatever it does later.

    Args:
        points: what to measure; those that ``path`` holds already are left as they are.
        path: file to keep the table in, written now and then, so that an interrupted measurement goes on where it was.
        threads: that the delegate computes with.
        seconds: spent on running each point, about.
        library: see :func:`keras_prune.load_delegate`.
        progress: called with points done or begun, points wanted and the point that is next.

    Raises:
        ValueError: ``path`` holds a table of another CPU, version or number of threads, or one measured without
            yardsticks; remove it first.
        FileNotFoundError: there is no library.
    """
    cpu, version = cpu_name(), library_version(library)
    table = LatencyTable({}, cpu, version, threads)
    if path is not None and Path(path).exists():
        table = LatencyTable.load(path)
        try:
            table.check(cpu, version)
        except ValueError as error:
            raise ValueError(f"{path}: {error}. To measure anew, remove it or give another file") from None
        if table.threads != threads:
            raise ValueError(f"{path} was measured with {table.threads} threads, not {threads}: give another file")
        if not table.yardsticks:
            raise ValueError(f"{path} was measured without yardsticks: to measure anew, remove it or give another file")
    wanted = list(dict.fromkeys(points))
    todo = [point for point in wanted if point not in table.entries]
    entries = dict(table.entries)
    yardsticks = [yardstick(text, library) for text in table.yardsticks or YARDSTICKS]
    quick = np.array(list(table.yardsticks.values())) * 1e-6
    if not table.yardsticks:
        quick = reference(yardsticks, min(_REFERENCE_SECONDS, 20 * seconds))
    kept = dict(table.yardsticks) or dict(zip(YARDSTICKS, (quick * 1e6).tolist(), strict=True))
    while todo:
        batch, todo = _batch(todo)
        begun: list[Timed] = []
        pairs: list[list[int]] = []
        try:
            for i, point in enumerate(batch, start=len(wanted) - len(todo) - len(batch)):
                progress(i, len(wanted), point)
                models = [one_layer(point)] + ([one_layer(point, False)] if point.layer.kind == "add" else [])
                pairs.append(list(range(len(begun), len(begun) + len(models))))
                begun += [Timed(model, threads, library, profile=True) for model in models]
            times = in_turns(begun, yardsticks, seconds * len(batch), threads=threads)
        finally:
            profiles = [timed.profile() for timed in begun]
        # The call itself takes about as long as a small layer, but in a network once only: it is no layer's.
        call = np.median([own.mean() * 1e6 - _sum(profile) for profile, (own, _) in zip(profiles, times, strict=True)])
        for point, pair in zip(batch, pairs, strict=True):
            own, *without = (at_reference(*times[i], quick) * _share(point, profiles[i], call) * 1e6 for i in pair)
            # What is less than a hundredth of what it stands among is not told from nothing.
            entries[point] = max(own - sum(without), 0.01 * own)
        if path is not None:
            LatencyTable(entries, cpu, version, threads, kept).save(path)
    return LatencyTable(entries, cpu, version, threads, kept)


def _batch(todo: list[Point]) -> tuple[list[Point], list[Point]]:
    """Divide points into some that fit into memory together, and those that are left."""
    count, weights = 1, 4 * todo[0].layer.weights
    while count < min(_BATCH, len(todo)) and weights + 4 * todo[count].layer.weights <= _BATCH_BYTES:
        weights += 4 * todo[count].layer.weights
        count += 1
    return todo[:count], todo[count:]


def checked_table(table: LatencyTable | str | os.PathLike[str] | None, force: bool = False) -> LatencyTable:
    """Return a table that is for this machine's CPU and the library's version; by default the one measured here.

    Args:
        table: the table, or the file that keeps it.
        force: take a table of another CPU or version.

    Raises:
        ValueError: the table is of another CPU or version, or the file is no table.
        FileNotFoundError: there is no such file; by default, no table was measured on this machine.
    """
    cpu = cpu_name()
    if table is None:
        table = default_path(cpu)
        if not table.exists():
            raise FileNotFoundError(f"{table}: no latency table yet; measure one by keras-prune latency-table")
    if not isinstance(table, LatencyTable):
        table = LatencyTable.load(table)
    if not force:
        table.check(cpu, None)
    try:
        version = library_version()
    except FileNotFoundError:
        return table  # without the library there is nothing that the table could disagree with
    if not force:
        table.check(None, version)
    elif table.version != version:
        # A table for a phone is always forced, for its CPU; it may be of other kernels all the same.
        warnings.warn(f"the latency table is for the library version {table.version!r}, not {version!r}", stacklevel=3)
    return table


def library_version(library: str | os.PathLike[str] | None = None) -> str:
    """Ask the delegate's library for its version, by loading a small model.

    Returns:
        The version and, after a plus sign, a fingerprint of all sources that decide how long a layer takes.
    """
    point = Point(Layer("conv", 2, 2, 8, 8), "aligned_block:4", 0.5)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        with captured_stderr():
            _interpreter(one_layer(point), 1, library, report_path=report)
        found = json.loads(report.read_text())
        return f"{found['version']}+{found['kernels']}"


class Timed:
    """A model in the delegate, with an input of random numbers; calling it runs it.

    Args:
        model: a `.tflite`.
        threads: of the delegate.
        library: see :func:`keras_prune.load_delegate`.
        options: of the delegate.
    """

    def __init__(self, model: bytes, threads: int = 1, library: Any = None, **options: Any) -> None:
        with captured_stderr():  # the delegate's line for each model
            self._interpreter = _interpreter(model, threads, library, **options)
        detail = self._interpreter.get_input_details()[0]
        values = np.random.default_rng(0).standard_normal(detail["shape"], dtype=np.float32)
        self._interpreter.set_tensor(detail["index"], values)

    def __call__(self) -> None:
        self._interpreter.invoke()

    def profile(self) -> list[tuple[float, str]]:
        """End it, and return the mean microseconds and the name of each op, with the option ``profile``."""
        with captured_stderr() as said:
            self._interpreter = None  # only then the delegate tells its times
        return [(float(us), name) for us, name in _TIME.findall(said[0])]


def yardstick(text: str, library: str | os.PathLike[str] | None = None) -> Timed:
    """Make a yardstick of the layer that a text names, see :mod:`keras_prune.mapping.yardstick`."""
    return Timed(one_layer(Point.parse(text)), 1, library)


def _share(point: Point, times: list[tuple[float, str]], call: Any) -> float:
    """Return the part that a layer takes of its model's time, without what leads to and from it and the call."""
    computing = [us for us, name in times if name not in _LAYOUT]
    own = computing[2 if _has_lead(point.layer) else 0 : -1]
    if not own:
        raise ValueError(f"the delegate did not run {point} by itself; it ran {[name for _, name in times]}")
    return sum(own) / (_sum(times) + call)


def _sum(times: list[tuple[float, str]]) -> float:
    return sum(us for us, _ in times)


def one_layer(point: Point, added: bool = True) -> bytes:
    """Make a block-sparse `.tflite` of a layer between two small ones, which keep the delegate's own layout.

    An addition stands where networks have it: it adds an image to what three layers have made of it, and another layer
    comes next. It is computed along with the third; a 3x3 convolution comes before, which takes so long that a large
    image is in no cache any more, and nor is the sum when it is read. So what it takes is the difference from the same
    four layers without it, for ``added=False``.
    """
    layer = point.layer
    random = np.random.default_rng(0)
    builder = _Builder()
    weights = _weights(layer, point, random)
    if layer.kind == "dense":
        source = builder.tensor([1, layer.channels])
        output = builder.dense(builder.dense(source, weights), _small(random, _TAIL, layer.filters, 0.5))
        return _converted(builder.build(source, output), point)
    lead = _has_lead(layer)
    source = image = builder.tensor([1, layer.height, layer.width, _LEAD if lead else layer.channels])
    if lead:
        # Memory of two sizes in turn, as in a network: where the measured layer writes has just been written and read.
        # One channel more, so that the layer that leads there is never of the very size that is measured.
        wide = layer.filters + 1
        image = builder.conv(image, _inner(random, wide, _LEAD, 0.5))
        image = builder.conv(image, _inner(random, layer.channels, wide))
    if layer.kind == "conv":
        image = builder.conv(image, weights, layer.stride)
    elif layer.kind == "depthwise":
        image = builder.depthwise(image, weights, layer.stride)
    elif layer.kind == "max_pool":
        image = builder.max_pool(image, layer.kernel, layer.stride)
    elif layer.kind == "add":
        narrow = max(layer.channels // 4, 1)
        through = builder.conv(image, _inner(random, narrow, layer.channels))
        through = builder.conv(through, _small(random, narrow, 9 * narrow, 0.5).reshape(narrow, 3, 3, narrow))
        through = builder.conv(through, _inner(random, layer.channels, narrow))
        image = builder.add(through, image) if added else through
        image = builder.conv(image, _inner(random, narrow, layer.channels, 0.0))
    else:
        image = builder.mean(image)
    last = int(builder.tensors[image].shape[-1])
    output = builder.conv(image, _inner(random, _TAIL, last, 0.5))
    return _converted(builder.build(source, output), point)


def _has_lead(layer: Layer) -> bool:
    # The first convolution of a network reads the image as it is given.
    return layer.kind != "dense" and layer.channels > 4


def _converted(model: bytes, point: Point) -> bytes:
    """Convert so that the layer gets its own structure and block, however little that leaves out."""
    structure = point.scheme.split(":")[0]

    def latency(layer: Layer, scheme: str, zeros: float) -> float:
        own = scheme == point.scheme or structure == "pattern" == scheme.split(":")[0]
        return 2.0 if scheme == DENSE else 1.0 if own or layer != point.layer else 3.0

    structures = {"aligned_block", structure} - {DENSE}  # the layers around have aligned blocks
    return convert(model, structures=sorted(structures), latency=latency)


def _small(random: np.random.Generator, rows: int, columns: int, zeros: float) -> np.ndarray:
    matrix = random.standard_normal((rows, columns), dtype=np.float32)
    return np.where(AlignedBlock(4).mask(matrix, zeros), matrix, np.float32(0))


def _inner(random: np.random.Generator, filters: int, channels: int, zeros: float = 0.95) -> np.ndarray:
    """Make the weights of a 1x1 convolution that takes little time."""
    return _small(random, filters, channels, zeros).reshape(filters, 1, 1, channels)


def _weights(layer: Layer, point: Point, random: np.random.Generator) -> np.ndarray:
    if layer.kind not in ("conv", "dense", "depthwise"):
        return np.zeros(0, np.float32)
    if layer.kind == "depthwise":
        return random.standard_normal((1, *layer.kernel, layer.filters), dtype=np.float32)
    columns = layer.channels * layer.kernel[0] * layer.kernel[1]
    matrix = random.standard_normal((layer.filters, columns), dtype=np.float32)
    structure = parse_scheme(point.scheme)
    if structure is not None:
        matrix = np.where(structure.mask(matrix, point.zeros, layer.kernel), matrix, np.float32(0))
    return matrix if layer.kind == "dense" else matrix.reshape(layer.filters, *layer.kernel, layer.channels)


class _Builder:
    """One chain of operators."""

    def __init__(self) -> None:
        self.schema = flatbuffer.schema()
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [self.schema.BufferT()]
        self.operators: list[Any] = []
        self.codes: list[Any] = []

    def tensor(self, shape: Sequence[int], values: np.ndarray | None = None) -> int:
        tensor = self.schema.TensorT()
        tensor.shape = np.array(shape, np.int32)
        tensor.name = f"tensor_{len(self.tensors)}"
        if values is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
            self.buffers.append(buffer)
            tensor.buffer = len(self.buffers) - 1
            tensor.type = self.schema.TensorType.INT32 if values.dtype == np.int32 else self.schema.TensorType.FLOAT32
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def operator(self, name: str, inputs: list[int], shape: Sequence[int], options: Any) -> int:
        builtin = getattr(self.schema.BuiltinOperator, name)
        codes = [code.builtinCode for code in self.codes]
        if builtin not in codes:
            code = self.schema.OperatorCodeT()
            code.builtinCode = code.deprecatedBuiltinCode = builtin
            code.version = 1
            self.codes.append(code)
            codes.append(builtin)
        operator = self.schema.OperatorT()
        operator.opcodeIndex = codes.index(builtin)
        operator.inputs = np.array(inputs, np.int32)
        output = self.tensor(shape)
        operator.outputs = np.array([output], np.int32)
        operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        operator.builtinOptions = options
        self.operators.append(operator)
        return output

    def _image(self, source: int, channels: int, stride: int) -> list[int]:
        _, height, width, _ = (int(n) for n in self.tensors[source].shape)
        return [1, -(-height // stride), -(-width // stride), channels]

    def conv(self, source: int, weights: np.ndarray, stride: int = 1) -> int:
        options = self.schema.Conv2DOptionsT()
        options.strideH = options.strideW = stride
        options.dilationHFactor = options.dilationWFactor = 1
        filters = weights.shape[0]
        inputs = [source, self.tensor(weights.shape, weights), self.tensor([filters], np.zeros(filters, np.float32))]
        return self.operator("CONV_2D", inputs, self._image(source, filters, stride), options)

    def depthwise(self, source: int, weights: np.ndarray, stride: int) -> int:
        options = self.schema.DepthwiseConv2DOptionsT()
        options.strideH = options.strideW = stride
        options.dilationHFactor = options.dilationWFactor = options.depthMultiplier = 1
        filters = weights.shape[-1]
        inputs = [source, self.tensor(weights.shape, weights), self.tensor([filters], np.zeros(filters, np.float32))]
        return self.operator("DEPTHWISE_CONV_2D", inputs, self._image(source, filters, stride), options)

    def dense(self, source: int, weights: np.ndarray) -> int:
        options = self.schema.FullyConnectedOptionsT()
        units = weights.shape[0]
        inputs = [source, self.tensor(weights.shape, weights), self.tensor([units], np.zeros(units, np.float32))]
        return self.operator("FULLY_CONNECTED", inputs, [1, units], options)

    def max_pool(self, source: int, kernel: tuple[int, int], stride: int) -> int:
        options = self.schema.Pool2DOptionsT()
        options.strideH = options.strideW = stride
        options.filterHeight, options.filterWidth = kernel
        shape = self._image(source, int(self.tensors[source].shape[-1]), stride)
        return self.operator("MAX_POOL_2D", [source], shape, options)

    def add(self, one: int, other: int) -> int:
        return self.operator("ADD", [one, other], list(self.tensors[one].shape), self.schema.AddOptionsT())

    def mean(self, source: int) -> int:
        options = self.schema.ReducerOptionsT()
        options.keepDims = True
        axes = self.tensor([2], np.array([1, 2], np.int32))
        return self.operator("MEAN", [source, axes], [1, 1, 1, int(self.tensors[source].shape[-1])], options)

    def build(self, source: int, output: int) -> bytes:
        subgraph = self.schema.SubGraphT()
        subgraph.tensors, subgraph.operators = self.tensors, self.operators
        subgraph.inputs, subgraph.outputs = np.array([source], np.int32), np.array([output], np.int32)
        model = self.schema.ModelT()
        model.version = 3
        model.operatorCodes, model.subgraphs, model.buffers = self.codes, [subgraph], self.buffers
        return flatbuffer.write_model(model)


def _interpreter(model: bytes, threads: int, library: Any, **options: Any) -> Any:
    runtime = _runtime_module(None)
    delegate = load_delegate(threads, library=library, **options)
    interpreter = runtime.Interpreter(model_content=model, experimental_delegates=[delegate])
    interpreter.allocate_tensors()
    return interpreter


@contextlib.contextmanager
def captured_stderr() -> Iterator[list[str]]:
    """Collect what is written to standard error, by libraries too, into the one string of the list."""
    said = [""]
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said[0] = file.read().decode(errors="replace")
