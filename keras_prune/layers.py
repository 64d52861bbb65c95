"""Which weights of a model are pruned, and how each is seen as a matrix.

A layer of the user's own takes part by naming its weights in an attribute ``prunable_weights``: a sequence of names,
whose tensors are then laid out as those of Dense or of a convolution are (outputs last), or a mapping from names to
:class:`MatrixView`. For a class that cannot be changed, add a :class:`LayerRule` to :data:`RULES`.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True)
class MatrixView:
    """How a weight tensor is seen as a matrix ``[rows = output channels, columns = inputs]``.

    Args:
        rows: axes of the tensor that make up the rows.
        columns: axes that make up the columns, the slowest first.
        kernel: those of ``columns`` that are the spatial axes of a convolution.

    Example:
        >>> import numpy as np
        >>> from keras_prune.layers import MatrixView
        >>> view = MatrixView(rows=(3,), columns=(0, 1, 2), kernel=(0, 1))
        >>> view.to_matrix(np.zeros([3, 3, 16, 32])).shape
        (32, 144)
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    kernel: tuple[int, ...] = ()

    def to_matrix(self, tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the tensor as a matrix."""
        rows = int(np.prod([tensor.shape[axis] for axis in self.rows]))
        return tensor.transpose(self.rows + self.columns).reshape(rows, -1)

    def from_matrix(self, matrix: npt.NDArray[Any], shape: Sequence[int]) -> npt.NDArray[Any]:
        """Return the tensor of the given shape whose matrix this is."""
        axes = self.rows + self.columns
        return matrix.reshape([shape[axis] for axis in axes]).transpose(np.argsort(axes))

    def kernel_size(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Spatial size of the kernel; (1, 1) where there is none."""
        return tuple(int(shape[axis]) for axis in self.kernel) or (1, 1)


DENSE = MatrixView(rows=(1,), columns=(0,))
CONV_1D = MatrixView(rows=(2,), columns=(0, 1), kernel=(0,))
CONV_2D = MatrixView(rows=(3,), columns=(0, 1, 2), kernel=(0, 1))
CONV_3D = MatrixView(rows=(4,), columns=(0, 1, 2, 3), kernel=(0, 1, 2))
DEPTHWISE_2D = MatrixView(rows=(2, 3), columns=(0, 1), kernel=(0, 1))

Weights = Callable[[Any], dict[str, MatrixView]]


@dataclasses.dataclass(frozen=True)
class LayerRule:
    """What can be pruned in a type of layer.

    Args:
        weights: maps a layer to its weights' attribute names, with dots for those of its parts, and their views.
        role: ``"convolution"`` and ``"dense"`` layers are pruned by default, except the first convolution and the last
            of all; ``"own"`` layers always; any other role only when the layer is named.
        obstacle: maps a layer to the reason why it cannot be pruned, or None.
    """

    weights: Weights
    role: str
    obstacle: Callable[[Any], str | None] = lambda layer: None


def _grouped(layer: Any) -> str | None:
    groups = getattr(layer, "groups", 1)
    return f"its {groups} groups read different inputs, which no block structure can share" if groups > 1 else None


def _depthwise_name(layer: Any) -> str:
    return "depthwise_kernel" if hasattr(layer, "depthwise_kernel") else "kernel"


def _einsum_axes(layer: Any) -> tuple[str, str, str]:
    """Give the letters of an EinsumDense layer's input, kernel and output."""
    operands, output = layer.equation.replace("...", "").replace(" ", "").split("->")
    source, kernel = operands.split(",")
    return source, kernel, output


def _einsum_weights(layer: Any) -> dict[str, MatrixView]:
    source, kernel, output = _einsum_axes(layer)
    rows = tuple(kernel.index(letter) for letter in output if letter in kernel)
    columns = tuple(axis for axis, letter in enumerate(kernel) if letter in source)
    return {"kernel": MatrixView(rows, columns)}


def _einsum_obstacle(layer: Any) -> str | None:
    source, kernel, output = _einsum_axes(layer)
    rows, columns = set(kernel) & set(output), set(kernel) & set(source)
    if rows & columns or rows | columns != set(kernel) or not rows or not columns:
        return f"its equation {layer.equation!r} is no product with one matrix"
    return None


_CELLS = ("LSTMCell", "GRUCell", "SimpleRNNCell")


def _recurrent_weights(layer: Any) -> dict[str, MatrixView]:
    """Give a recurrent layer's kernels, unless it has cells of other kinds: they are layers of their own then."""
    stacked = getattr(layer.cell, "cells", None)
    cells = {f"cell.cells.{i}": cell for i, cell in enumerate(stacked)} if stacked else {"cell": layer.cell}
    if not all(any(cls.__name__ in _CELLS for cls in type(cell).__mro__) for cell in cells.values()):
        return {}
    return {f"{path}.{name}": DENSE for path in cells for name in ("kernel", "recurrent_kernel")}


def _transposed(layer: Any) -> str:
    return "transposed convolutions stay dense"


# By class name, so that Keras 3 and tf_keras need not both be there; subclasses are found through their base classes.
RULES: dict[str, LayerRule] = {
    "Dense": LayerRule(lambda layer: {"kernel": DENSE}, "dense"),
    "Conv1D": LayerRule(lambda layer: {"kernel": CONV_1D}, "convolution", _grouped),
    "Conv2D": LayerRule(lambda layer: {"kernel": CONV_2D}, "convolution", _grouped),
    "Conv3D": LayerRule(lambda layer: {"kernel": CONV_3D}, "convolution", _grouped),
    "DepthwiseConv2D": LayerRule(lambda layer: {_depthwise_name(layer): DEPTHWISE_2D}, "depthwise"),
    "SeparableConv1D": LayerRule(lambda layer: {"pointwise_kernel": CONV_1D}, "convolution"),
    "SeparableConv2D": LayerRule(lambda layer: {"pointwise_kernel": CONV_2D}, "convolution"),
    "EinsumDense": LayerRule(_einsum_weights, "dense", _einsum_obstacle),
    "RNN": LayerRule(_recurrent_weights, "dense"),
    **{cell: LayerRule(lambda layer: {"kernel": DENSE, "recurrent_kernel": DENSE}, "dense") for cell in _CELLS},
    "Conv1DTranspose": LayerRule(lambda layer: {}, "other", _transposed),
    "Conv2DTranspose": LayerRule(lambda layer: {}, "other", _transposed),
    "Conv3DTranspose": LayerRule(lambda layer: {}, "other", _transposed),
}

_BY_RANK = {2: DENSE, 3: CONV_1D, 4: CONV_2D, 5: CONV_3D}


def _own_weights(layer: Any) -> dict[str, MatrixView]:
    """Read the attribute by which a layer of the user's own names the weights to prune."""
    named = layer.prunable_weights
    if callable(named):
        named = named()
    if isinstance(named, str):
        named = [named]
    views: dict[str, MatrixView] = {}
    for name in named:
        variable = getattr(layer, name, None)
        if variable is None or not hasattr(variable, "shape"):
            raise ValueError(f"prunable_weights of layer {layer.name!r} names {name!r}, which is no weight of it")
        view = named[name] if isinstance(named, Mapping) else _BY_RANK.get(len(variable.shape))
        if not isinstance(view, MatrixView) or sorted(view.rows + view.columns) != list(range(len(variable.shape))):
            raise ValueError(
                f"weight {name!r} of layer {layer.name!r} has the shape {tuple(variable.shape)}: give "
                "prunable_weights as a mapping from names to a MatrixView of all its axes"
            )
        views[name] = view
    return views


_OWN = LayerRule(_own_weights, "own")


@dataclasses.dataclass
class Candidate:
    """One weight, or one layer without any, and what is to be done with it."""

    path: str
    layer: Any
    weight_name: str = ""
    variable: Any = None
    view: MatrixView | None = None
    role: str = "other"
    obstacle: str | None = None
    """Why the weight cannot be pruned, or None if it can."""
    named: bool = False
    """Whether the user asked for exactly this layer; then an obstacle is an error."""
    skipped: str | None = None
    """Why the weight stays dense, or None if it is to be pruned."""

    @property
    def kind(self) -> str:
        """The layer's class name."""
        return type(self.layer).__name__


_DEPTHWISE = "depthwise convolutions stay dense unless named"

LayerSpec = Any
"""None, a layer name, path or pattern, a compiled regular expression, a layer, a predicate, or a sequence of these."""


def find_weights(model: Any, layers: LayerSpec = None, exclude: LayerSpec = None) -> list[Candidate]:
    """List all layers of a model that have weights, and marks which are to be pruned.

    Args:
        model: a built Keras model.
        layers: which layers to prune. None: all convolutions and dense layers except the first convolution and the last
            layer of either type, which makes the classification; depthwise convolutions stay dense. Otherwise a layer's
            name, its path in nested models (``"backbone/conv1"``), a pattern of either (``"block_*"``), a compiled
            regular expression (searched in the path), a layer, a predicate ``layer -> bool``, or a sequence of these. A
            model or wrapper means the layers inside it. Patterns, regular expressions and models leave depthwise
            convolutions dense; all else takes what it names.
        exclude: layers to leave dense, given in the same ways.

    Returns:
        The layers in the order of the model, each with its weight and with the reason if it stays dense.

    Raises:
        ValueError: the model is not built, a name or pattern fits no layer, or a named layer cannot be pruned.
    """
    found = [c for path, layer in walk(model) for c in _candidates(path, layer)]
    if not found:
        raise ValueError(
            f"model {model.name!r} has no weights yet: build it before pruning, with model.build(input_shape) or by "
            "calling it on a batch"
        )
    if layers is None:
        _choose_default(found)
    else:
        _choose(found, _as_list(layers))
    for spec in _as_list(exclude) if exclude is not None else []:
        for candidate in _match(found, spec)[0]:
            candidate.skipped = candidate.skipped or "excluded"
    return found


def walk(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, layer) for all layers inside a model, nested ones included, each once and in order."""
    seen: set[int] = set()

    def visit(parent: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for layer in _children(parent):
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            yield prefix + layer.name, layer
            yield from visit(layer, prefix + layer.name + "/")

    return visit(model, prefix)


def _children(layer: Any) -> list[Any]:
    # Models list their layers in the order of computation; other layers in the order of their attributes.
    if rule_for(layer) is RULES["RNN"] and _recurrent_weights(layer):
        return []  # Its cells are not layers that anyone named.
    own = getattr(layer, "layers", None)
    if isinstance(own, (list, tuple)):
        return list(own)
    return list(layer._flatten_layers(include_self=False, recursive=False))


def rule_for(layer: Any) -> LayerRule | None:
    """Find the rule of the layer itself, of its class or of the nearest base class that has one."""
    if hasattr(layer, "prunable_weights"):
        return _OWN
    for cls in type(layer).__mro__:
        if cls.__name__ in RULES:
            return RULES[cls.__name__]
    return None


def _candidates(path: str, layer: Any) -> list[Candidate]:
    rule = rule_for(layer)
    obstacle = rule.obstacle(layer) if rule is not None else None
    if rule is not None and obstacle is not None:
        return [Candidate(path, layer, role=rule.role, obstacle=obstacle)]
    if not layer.built:
        # Layers that the model never calls stay unbuilt; a model of only such layers is reported as unbuilt.
        return []
    weights = rule.weights(layer) if rule is not None else {}
    if rule is None or not weights:
        own = [w for w in getattr(layer, "_trainable_variables", []) or getattr(layer, "_trainable_weights", [])]
        if not own:
            return []
        return [Candidate(path, layer, obstacle=f"{type(layer).__name__} has no weight matrix to prune")]
    result = []
    for name, view in weights.items():
        owner, variable = _variable(layer, name)
        candidate = Candidate(path, layer, name, variable, view, rule.role)
        dtype = str(getattr(variable.dtype, "name", variable.dtype))
        if "float" not in dtype or "float8" in dtype:
            candidate.obstacle = f"its {name} is of type {dtype}; prune before quantizing"
        elif getattr(owner, "lora_enabled", False):
            candidate.obstacle = "LoRA is enabled: merge the update into the kernel first"
        result.append(candidate)
    return result


def _variable(layer: Any, name: str) -> tuple[Any, Any]:
    """Find a weight by its attribute's name, and the layer or cell that it belongs to."""
    *parts, name = name.split(".")
    for part in parts:
        layer = layer[int(part)] if part.isdigit() else getattr(layer, part)
    # Keras keeps the variable behind a property that may compute, for instance to add a low-rank update.
    variable = getattr(layer, "_" + name, None)
    return layer, variable if variable is not None else getattr(layer, name)


def _choose_default(found: list[Candidate]) -> None:
    usual = [c for c in found if c.role in ("convolution", "dense") and c.variable is not None]
    convolutions = [c for c in usual if c.role == "convolution"]
    for candidate in found:
        if candidate.obstacle is not None:
            candidate.skipped = candidate.obstacle
        elif candidate.role == "depthwise":
            candidate.skipped = _DEPTHWISE
        elif candidate.role not in ("convolution", "dense", "own"):
            candidate.skipped = f"{candidate.kind} stays dense unless named"
        elif usual and candidate.layer is usual[-1].layer:
            candidate.skipped = "the last layer stays dense unless named"
        elif convolutions and candidate.layer is convolutions[0].layer:
            candidate.skipped = "the first convolution stays dense unless named"
        elif not candidate.layer.trainable:
            candidate.skipped = "frozen (trainable=False)"


def _choose(found: list[Candidate], specs: list[Any]) -> None:
    why_not = {id(c): "not among the chosen layers" for c in found}
    for spec in specs:
        matches, exact = _match(found, spec)
        for candidate in matches:
            if exact and candidate.obstacle is not None:
                raise ValueError(
                    f"layer {candidate.path!r} cannot be pruned: {candidate.obstacle}. Leave it out of `layers`"
                )
            if candidate.role == "depthwise" and isinstance(spec, (str, re.Pattern)) and not exact:
                if id(candidate) in why_not:
                    why_not[id(candidate)] = _DEPTHWISE
            else:
                candidate.named |= exact
                why_not.pop(id(candidate), None)
    for candidate in found:
        candidate.skipped = candidate.obstacle or why_not.get(id(candidate))


def _match(found: list[Candidate], spec: Any) -> tuple[list[Candidate], bool]:
    """Candidates that a specification means, and whether it names them one by one."""
    if isinstance(spec, str):
        exact = [c for c in found if spec in (c.path, c.layer.name, f"{c.path}/{c.weight_name}")]
        if exact:
            return exact, True
        inside = [c for c in found if c.path.startswith(spec + "/") or spec in c.path.split("/")[:-1]]
        if inside:
            return inside, False
        matches = [c for c in found if fnmatch.fnmatchcase(c.path, spec) or fnmatch.fnmatchcase(c.layer.name, spec)]
        if not matches:
            raise ValueError(_unknown(found, spec))
        return matches, False
    if isinstance(spec, re.Pattern):
        matches = [c for c in found if spec.search(c.path)]
        if not matches:
            raise ValueError(_unknown(found, spec.pattern))
        return matches, False
    if hasattr(spec, "weights") and hasattr(spec, "built"):
        matches = [c for c in found if c.layer is spec]
        if matches:
            return matches, True
        parts = {id(layer) for _, layer in walk(spec)}
        matches = [c for c in found if id(c.layer) in parts]
        if not matches:
            raise ValueError(f"layer {getattr(spec, 'name', spec)!r} is not part of the model or has no weights")
        return matches, False
    if callable(spec):
        # A predicate sees every layer, and what it takes of those that cannot be pruned is skipped.
        return [c for c in found if c.variable is not None and spec(c.layer)], False
    raise ValueError(
        f"cannot choose layers by {spec!r}: give names, patterns, compiled regular expressions, layers or predicates"
    )


def _unknown(found: list[Candidate], name: str) -> str:
    paths = [c.path for c in found]
    near = difflib.get_close_matches(name, paths + [c.layer.name for c in found], n=3)
    hint = f"did you mean {' or '.join(map(repr, dict.fromkeys(near)))}?" if near else f"there are {', '.join(paths)}"
    return f"no layer with weights is called or matches {name!r}; {hint}"


def _as_list(spec: LayerSpec) -> list[Any]:
    return list(spec) if isinstance(spec, (list, tuple, set, frozenset)) else [spec]
