"""The weights of one model under pruning: what the callback ties to ``fit``, usable without it."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_prune.layers import Candidate, LayerSpec, find_weights
from keras_prune.report import LayerReport, Report
from keras_prune.structures import Structure
from keras_prune.targets import Target

SCOPES = ("layer", "global")

StructureSpec = Structure | Mapping[str, Structure] | Callable[[Any], Structure | None]
"""One structure for all layers, one a layer name or pattern, or a function of the layer (None leaves it dense)."""


class Pruner:
    """The weights of a built model that are pruned, with a structure and a mask each.

    Args:
        model: a built Keras model.
        structure: a structure, or a mapping from layer names and patterns to structures (the first that fits counts),
            or a function of the layer.
        layers: which layers, see :func:`keras_prune.layers.find_weights`.
        exclude: which layers to leave dense.
        scope: ``"layer"``: the fraction of zeros holds in each layer; ``"global"``: over all layers together, so that
            layers with larger weights keep more.

    Raises:
        ValueError: see :func:`keras_prune.layers.find_weights`; also when no layer is left to prune.
    """

    def __init__(
        self,
        model: Any,
        structure: StructureSpec,
        layers: LayerSpec = None,
        exclude: LayerSpec = None,
        scope: str = "layer",
    ) -> None:
        check_scope(scope)
        self.scope = scope
        self.candidates = find_weights(model, layers, exclude)
        self.targets: list[Target] = []
        self._by_candidate: dict[int, Target] = {}
        for candidate in self.candidates:
            chosen = self._structure_for(candidate, structure)
            if chosen is not None:
                target = Target(candidate, chosen)
                self.targets.append(target)
                self._by_candidate[id(candidate)] = target
        if not self.targets:
            raise ValueError(
                f"no layer of model {model.name!r} would be pruned; choose some with `layers`:\n{self.report()}"
            )

    @staticmethod
    def _structure_for(candidate: Candidate, spec: StructureSpec) -> Structure | None:
        """Find the structure of a candidate that is to be pruned, or None after noting why it is not."""
        if candidate.skipped is not None or candidate.view is None:
            return None
        structure: Structure | None
        if isinstance(spec, Structure):
            structure = spec
        elif isinstance(spec, Mapping):
            names = (candidate.path, candidate.layer.name, *candidate.path.split("/")[:-1])
            structure = next((s for pattern, s in spec.items() if any(_fits(pattern, n) for n in names)), None)
        else:
            structure = spec(candidate.layer)
        if structure is None:
            candidate.skipped = "no structure is given for it"
            return None
        shape = tuple(int(n) for n in candidate.variable.shape)
        rows = int(np.prod([shape[axis] for axis in candidate.view.rows]))
        columns = int(np.prod(shape)) // max(rows, 1)
        obstacle = structure.obstacle(rows, columns, candidate.view.kernel_size(shape))
        if obstacle is not None and candidate.named:
            raise ValueError(f"layer {candidate.path!r} cannot be pruned: {obstacle}. Leave it out of `layers`")
        candidate.skipped = obstacle
        return structure if obstacle is None else None

    def prepare(self) -> None:
        """Let structures take from the trained weights what they need, once."""
        for indices in _same([target.structure for target in self.targets]).values():
            members = [self.targets[i] for i in indices]
            prepared = members[0].structure.prepare([t.matrix() for t in members], [t.kernel for t in members])
            for target in members:
                target.structure = prepared

    def project(
        self,
        targets: Sequence[Target],
        matrices: Sequence[npt.NDArray[np.float32]],
        zeros: float,
        structures: Sequence[Structure] | None = None,
    ) -> list[npt.NDArray[np.bool_]]:
        """Choose a mask for each matrix, within the scope of the budget.

        Args:
            targets: the weights that the matrices belong to; one may occur several times.
            matrices: what to choose masks for, ``[rows, columns]``.
            zeros: fraction of zeros.
            structures: of each matrix, if not its target's own.
        """
        if structures is None:
            structures = [target.structure for target in targets]
        masks: list[npt.NDArray[np.bool_]] = [np.zeros(0, bool)] * len(matrices)
        # A global budget is one for each structure, as units of unlike size do not compete.
        separate = self.scope == "layer"
        budgets = [[i] for i in range(len(matrices))] if separate else list(_same(structures).values())
        for members in budgets:
            chosen = structures[members[0]].masks(
                [matrices[i] for i in members], zeros, [targets[i].kernel for i in members]
            )
            for i, mask in zip(members, chosen, strict=True):
                masks[i] = mask
        return masks

    def install(
        self,
        optimizer: Callable[[], Any] = lambda: None,
        penalty: Callable[[Target], Callable[[Any], Any] | None] = lambda target: None,
    ) -> bool:
        """Make masks and penalties act in training steps traced from now on; return whether any was new.

        Args:
            optimizer: finds the optimizer that will train the weights.
            penalty: gives each weight's term ``weights -> scalar tensor`` for the loss, or None.
        """
        return any([target.install(optimizer, penalty(target)) for target in self.targets])

    def uninstall(self) -> None:
        """Let the weights train freely again, once the training step is traced anew."""
        for target in self.targets:
            target.uninstall()

    def apply(self) -> None:
        """Zero all masked entries now."""
        for target in self.targets:
            target.apply()

    def obeyed(self) -> bool:
        """Tell whether all masked entries are zero."""
        return all(bool(target.obeyed()) for target in self.targets)

    @property
    def zeros(self) -> float:
        """Fraction of masked entries over all targets."""
        return sum(t.zeros * t.size for t in self.targets) / sum(t.size for t in self.targets)

    def report(self) -> Report:
        """Tell what is done to each layer, or why it is skipped."""
        lines = []
        for candidate in self.candidates:
            target = self._by_candidate.get(id(candidate))
            rows = columns = 0
            if candidate.view is not None:
                shape = tuple(int(n) for n in candidate.variable.shape)
                rows = int(np.prod([shape[axis] for axis in candidate.view.rows]))
                columns = int(np.prod(shape)) // max(rows, 1)
            lines.append(
                LayerReport(
                    layer=candidate.path,
                    kind=candidate.kind,
                    weight=candidate.weight_name,
                    rows=rows,
                    columns=columns,
                    structure=repr(target.structure) if target else "",
                    zeros=target.zeros if target else 0.0,
                    skipped=candidate.skipped or "",
                )
            )
        return Report(lines)


def sparsify(
    model: Any,
    structure: StructureSpec,
    zeros: float,
    layers: LayerSpec = None,
    exclude: LayerSpec = None,
    scope: str = "layer",
) -> Report:
    """Zero the smallest weights of a built model once, without training.

    Args:
        model: a built Keras model; its weights are changed in place.
        structure: see :class:`Pruner`.
        zeros: fraction of zeros, in [0, 1).
        layers: which layers, see :func:`keras_prune.layers.find_weights`.
        exclude: which layers to leave dense.
        scope: ``"layer"`` or ``"global"``, see :class:`Pruner`.

    Returns:
        What was done to each layer.

    Raises:
        ValueError: a fraction outside [0, 1), NaN weights, or as for :class:`Pruner`.

    Example:
        >>> import keras
        >>> from keras_prune import UnalignedBlock, sparsify
        >>> model = keras.Sequential([keras.Input([8]), keras.layers.Dense(16), keras.layers.Dense(2)])
        >>> report = sparsify(model, UnalignedBlock(size=4), zeros=0.75)
        >>> round(report.zeros, 2)
        0.75
    """
    pruner = Pruner(model, structure, layers, exclude, scope)
    pruner.prepare()
    masks = pruner.project(pruner.targets, [t.matrix() for t in pruner.targets], zeros)
    for target, mask in zip(pruner.targets, masks, strict=True):
        target.set_mask(mask)
    return pruner.report()


def check_scope(scope: str) -> None:
    """Raise ValueError unless ``scope`` is one of the two."""
    if scope not in SCOPES:
        raise ValueError(f'scope must be "layer" (a budget a layer) or "global" (one for all), but is {scope!r}')


def _same(structures: Sequence[Structure]) -> dict[Structure, list[int]]:
    """Find the places of each structure."""
    places: dict[Structure, list[int]] = {}
    for i, structure in enumerate(structures):
        places.setdefault(structure, []).append(i)
    return places


def _fits(pattern: str, name: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern)
