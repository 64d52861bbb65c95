"""Which operators become block-sparse, in which structure, and why the others do not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_prune.tflite import flatbuffer
from keras_prune.tflite.custom_options import CustomOptions
from keras_prune.tflite.encodings import DENSE_COST, ENCODINGS, FULLY_CONNECTED_DENSE_COST, Candidate, Shape, Weights
from keras_prune.tflite.layer import Layer
from keras_prune.tflite.operators import (
    FULLY_CONNECTED,
    WEIGHTS,
    DenseLayer,
    custom_code,
    layer_name,
    read_dense,
    replacement,
)
from keras_prune.tflite.payoff import Latency, Payoff, payoff, read_call, total
from keras_prune.tflite.recurrent_forms import find_recurrent

# Below this share of zeros a layer stays dense, where no latencies tell. `make bench-payoff` measures it: from here on
# nine tenths of the convolutions with blocks of 4 rows and more are the faster for their zeros; smaller blocks and
# fully connected layers are left to the model of their cost.
MIN_ZEROS = 0.25
# Fewer zeros than this are chance: nobody asks whether they pay.
FEW_ZEROS = 0.05
# Between structures that are equally fast the smaller file decides: so many multiply-adds a pixel is a byte worth.
BYTE_COST = 1 / 16

# Operators with weights that have no block-sparse form; `inspect` lists them with that reason.
_OTHER_LAYERS = ("DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "CONV_3D", "BATCH_MATMUL")


@dataclass(frozen=True)
class Site:
    """One operator of the file, and those of its inputs that hold the weights, one below another."""

    subgraph: int
    index: int
    operator: Any
    name: str
    slots: tuple[int, ...] = (WEIGHTS,)

    @property
    def weights(self) -> list[int]:
        """The weights' tensors."""
        inputs = flatbuffer.ints(self.operator.inputs)
        return [inputs[slot] for slot in self.slots]


@dataclass
class Group:
    """Operators that share their weights' buffers; all become block-sparse, or none.

    Attributes:
        buffers: the buffers' indices: one, or one a gate where an operator has its gates' weights apart.
        sites: the operators, with what was read of each.
        tensors: the weights' tensors, as (subgraph, index).
        fixed: whether others read the buffers too, so that they must stay as they are.
        reason: why the group stays dense; empty if it does not.
        weights: the matrix, where it could be read.
        candidate: how the matrix is stored.
        calls: how each of the operators calls it; None where no latency is measured of that.
        payoffs: latencies of each of the calls, where they were asked for and known.
        unknown: whether they were asked for and not known.
    """

    buffers: tuple[int, ...]
    sites: list[tuple[Site, DenseLayer]]
    tensors: set[tuple[int, int]]
    fixed: bool = False
    reason: str = ""
    weights: Weights | None = None
    candidate: Candidate | None = None
    calls: list[Layer | None] = field(default_factory=list)
    payoffs: list[Payoff | None] = field(default_factory=list)
    unknown: bool = False

    @property
    def zeros(self) -> float | None:
        """Share of weights that are zero."""
        if self.weights is None:
            return None
        return 1.0 - int(np.count_nonzero(self.weights.matrix)) / self.weights.matrix.size


@dataclass(frozen=True)
class Plan:
    """What becomes of a dense model's layers.

    Attributes:
        groups: those with fp32 weights that the format could hold.
        others: the other layers with weights, each with the reason why it stays dense.
    """

    groups: list[Group]
    others: list[tuple[Site, str]]

    @property
    def unknown(self) -> list[str]:
        """Names of the layers whose latencies nobody knew."""
        return [site.name for group in self.groups if group.unknown for site, _ in group.sites]


def make_plan(model: Any, min_zeros: float, structures: Sequence[str], latency: Latency | None = None) -> Plan:
    """Choose a structure for every layer that is worth it.

    Args:
        model: a schema `ModelT`; not changed.
        min_zeros: share of a layer's weights that must not be stored for it to become block-sparse.
        structures: names of the structures to choose from.
        latency: decides instead of `min_zeros` where it knows the layer.

    Raises:
        ValueError: weights are NaN or infinite.
    """
    groups, others = _collect(model)
    for group in groups:
        group.weights = _read_weights(model, group)
        if not group.reason:
            _choose(group, min_zeros, structures, latency)
    return Plan(groups, others)


def _operators(model: Any) -> Iterator[Site]:
    for s, subgraph in enumerate(model.subgraphs):
        for i, operator in enumerate(subgraph.operators or []):
            yield Site(s, i, operator, layer_name(subgraph, operator))


def _collect(model: Any) -> tuple[list[Group], list[tuple[Site, str]]]:
    groups: dict[tuple[int, ...], Group] = {}
    others: list[tuple[Site, str]] = []

    def add(site: Site, layer: DenseLayer) -> None:
        tensors = site.weights
        buffers = tuple(int(model.subgraphs[site.subgraph].tensors[tensor].buffer) for tensor in tensors)
        group = groups.setdefault(buffers, Group(buffers, [], set()))
        group.sites.append((site, layer))
        group.tensors |= {(site.subgraph, tensor) for tensor in tensors}

    for site in _operators(model):
        if custom_code(model, site.operator) is not None:
            continue
        if replacement(model, site.operator) is None:
            name = flatbuffer.operator_name(model, site.operator)
            if name in _OTHER_LAYERS:
                others.append((site, f"{name} has no block-sparse form"))
            continue
        layer = read_dense(model, model.subgraphs[site.subgraph], site.operator)
        if isinstance(layer, str):
            others.append((site, layer))
        else:
            add(site, layer)
    layers, unknown = find_recurrent(model)
    for recurrent in layers:
        for name, (s, i, slots) in recurrent.matrices.items():
            if len(slots) > 1:  # or else it is an operator's only one, and has been added
                operator = model.subgraphs[s].operators[i]
                label = f"{layer_name(model.subgraphs[s], operator)}/{name}"
                add(site := Site(s, i, operator, label, slots), _stacked(model, site))
    for s, i, reason in unknown:
        subgraph = model.subgraphs[s]
        others.append((Site(s, i, subgraph.operators[i], layer_name(subgraph, subgraph.operators[i])), reason))
    recurrent_sites = {(s, i) for recurrent in layers for s, i, _ in recurrent.matrices.values()}
    for group in groups.values():
        group.calls = [
            None if site.subgraph > 0 or (site.subgraph, site.index) in recurrent_sites else _call(model, site, layer)
            for site, layer in group.sites
        ]
        group.reason = _why_fixed(model, group)
        group.fixed = bool(group.reason)
    return list(groups.values()), others


def _call(model: Any, site: Site, layer: DenseLayer) -> Layer | None:
    options = CustomOptions.of(layer.attributes, site.name)
    return read_call(model.subgraphs[site.subgraph], site.operator, layer.custom_code, layer.shape, options)


def _stacked(model: Any, site: Site) -> DenseLayer:
    """Read matrices of one size as a fully connected layer's, one below another."""
    rows, columns = flatbuffer.ints(model.subgraphs[site.subgraph].tensors[site.weights[0]].shape)
    shape = Shape(len(site.slots) * rows, columns, (1, 1))
    return DenseLayer(FULLY_CONNECTED, shape, {"keep_num_dims": False, "activation": "none"})


def _why_fixed(model: Any, group: Group) -> str:
    """Say who else reads a group's buffers, so that they must stay as they are."""
    if len({layer.shape for _, layer in group.sites}) > 1:
        return "weights are shared by layers of different shapes"
    members = {(site.subgraph, site.index, slot) for site, _ in group.sites for slot in site.slots}
    for site in _operators(model):
        for slot, tensor in enumerate(flatbuffer.ints(site.operator.inputs)):
            if tensor < 0 or model.subgraphs[site.subgraph].tensors[tensor].buffer not in group.buffers:
                continue
            if (site.subgraph, site.index, slot) not in members:
                return f"weights are also read by {flatbuffer.operator_name(model, site.operator)} {site.name!r}"
    for s, subgraph in enumerate(model.subgraphs):
        for t, tensor in enumerate(subgraph.tensors or []):
            if tensor.buffer in group.buffers and (s, t) not in group.tensors:
                return f"weights are also the constant {flatbuffer.text(tensor.name)!r}"
        for tensor in [*flatbuffer.ints(subgraph.inputs), *flatbuffer.ints(subgraph.outputs)]:
            if (s, tensor) in group.tensors:
                return "weights are an input or output of the model"
    for metadata in model.metadata or []:
        if metadata.buffer in group.buffers:
            return "weights are also metadata"
    return ""


def _read_weights(model: Any, group: Group) -> Weights:
    site, layer = group.sites[0]
    parts = [np.asarray(model.buffers[buffer].data, np.uint8) for buffer in group.buffers]
    data = parts[0] if len(parts) == 1 else np.concatenate(parts)
    matrix = np.frombuffer(data, "<f4").reshape(layer.shape.rows, layer.shape.columns)
    if not np.isfinite(matrix).all():
        name = flatbuffer.text(model.subgraphs[site.subgraph].tensors[site.weights[0]].name)
        kind = "NaN" if np.isnan(matrix).any() else "infinite"
        raise ValueError(
            f"layer {site.name!r}: its weights {name!r} hold {kind} values; "
            "train or load the layer anew before converting"
        )
    return Weights(matrix, layer.shape.kernel)


def _choose(group: Group, min_zeros: float, structures: Iterable[str], latency: Latency | None = None) -> None:
    assert group.weights is not None
    assert group.zeros is not None
    if group.zeros == 1.0:
        group.reason = "all weights are zero"  # and a tensor of no values is no constant to the runtime
        return
    names = structures if group.zeros >= (min_zeros if latency is None else FEW_ZEROS) else []
    found = [candidate for name in names for candidate in ENCODINGS[name].detect(group.weights)]
    if latency is not None and found:
        paying = _first_that_pays(group, found, latency)
        if paying is not None:
            candidate, predicted = paying
            if predicted.pays:
                group.candidate = candidate
            else:
                group.reason = f"{group.zeros:.1%} zeros; {predicted} as {candidate.scheme}"
            return
        group.unknown = True
    _choose_by_zeros(group, min_zeros, found)
    if group.unknown and group.reason:
        group.reason += "; how fast it would be is not known"


def _first_that_pays(group: Group, found: Iterable[Candidate], latency: Latency) -> tuple[Candidate, Payoff] | None:
    """Find the best candidate, by the modelled cost, that is faster than the dense layer by the latencies.

    Notes the latencies of each call.

    Returns:
        The candidate and its latencies; if none is faster, the one that is the fastest; None if none is known.
    """
    assert group.weights is not None
    fastest: tuple[Candidate, Payoff] | None = None
    for candidate in sorted(found, key=_rank):
        zeros = max(0.0, 1.0 - candidate.values / group.weights.matrix.size)
        payoffs = [payoff(latency, call, candidate.scheme, zeros) for call in group.calls]
        together = total(payoffs)
        if together is None or (fastest is not None and together.sparse >= fastest[1].sparse):
            continue
        fastest, group.payoffs = (candidate, together), payoffs
        if together.pays:
            break
    return fastest


def _choose_by_zeros(group: Group, min_zeros: float, found: list[Candidate]) -> None:
    assert group.weights is not None
    assert group.zeros is not None
    size = group.weights.matrix.size
    if group.zeros < min_zeros:
        group.reason = f"{group.zeros:.1%} zeros; at least {min_zeros:.1%} are worth it"
        return
    small = [candidate for candidate in found if candidate.values <= (1.0 - min_zeros) * size]
    if not small:
        best = max((1.0 - candidate.values / size for candidate in found), default=0.0)
        group.reason = (
            f"{group.zeros:.1%} zeros, but no block structure leaves out more than {max(best, 0.0):.1%} of the weights;"
            f" at least {min_zeros:.1%} are worth it"
        )
        return
    fastest = min(small, key=_rank)
    if fastest.cost < _dense_cost(group) * size:
        group.candidate = fastest
    else:
        group.reason = f"{group.zeros:.1%} zeros, but in blocks so small that the dense layer would be faster"


def _dense_cost(group: Group) -> float:
    vectors = any(layer.custom_code == FULLY_CONNECTED for _, layer in group.sites)
    return FULLY_CONNECTED_DENSE_COST if vectors else DENSE_COST


def _rank(candidate: Candidate) -> float:
    return candidate.cost + BYTE_COST * candidate.bytes
