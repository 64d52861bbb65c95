"""The file that a training is resumed from."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_prune import files
from keras_prune.methods import Method
from keras_prune.pruning import Pruner
from keras_prune.structures import Structure
from keras_prune.targets import Target

_NAME = "/name"  # of a structure within another, beside its arguments
VERSION = 1


@dataclasses.dataclass(frozen=True)
class Counters:
    """Where a training stands.

    Attributes:
        step: training steps under the callback.
        asked: the last step that the schedule was asked about.
        started: the optimizer's iterations when pruning began; None without an optimizer that counts.
        iterations: the same now.
    """

    step: int
    asked: int
    started: int | None
    iterations: int | None


class StateFile:
    """Masks, what the method keeps, and counters, in an ``.npz`` file and the one before it.

    The two make the order in which state and weights are saved not matter: a training may die between the two, and then
    the state that belongs to the saved weights is the one before.

    Args:
        path: the file; its folder is made when needed. The one before is beside it, ``<name>.previous.npz``.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path)
        self.previous = self.path.with_suffix(f".previous{self.path.suffix}")
        self._written: int | None = None

    def save(self, pruner: Pruner, method: Method, counters: Counters) -> None:
        """Write the file aside and then rename it, so that it is whole at any moment."""
        targets = [
            {
                "name": target.name,
                "shape": list(target.shape),
                "structure": target.structure.name,
                "arguments": _arguments(target.structure),
            }
            for target in pruner.targets
        ]
        meta = {"version": VERSION, "method": method.name, "targets": targets, **dataclasses.asdict(counters)}
        arrays: dict[str, npt.NDArray[Any]] = {"meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)}
        for i, target in enumerate(pruner.targets):
            arrays[f"mask/{i}"] = np.packbits(target.mask_variable.numpy())
        for name, variable in method.variables().items():
            arrays[f"method/{name}"] = variable.numpy()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(self.path) as aside:
            with open(aside, "wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
                file.flush()
                os.fsync(file.fileno())  # before the one there makes room for it
            # Saved twice at the same place, the one before stays the one before.
            if self.path.exists() and self._written != counters.step:
                os.replace(self.path.resolve(), self.previous)
        self._written = counters.step

    def load(self, pruner: Pruner, method: Method, iterations: int | None) -> Counters | None:
        """Take the state that belongs to the model's weights.

        Args:
            pruner: whose masks are set.
            method: whose variables are set; it must have started.
            iterations: steps that the model's optimizer has done.

        Returns:
            Where the training stood, or None where the training begins: there is no file, or the model is where it was
            when pruning began.

        Raises:
            ValueError: no state belongs to the model, or it was made with other layers, structures or another method.
        """
        found = [(path, *_read(path)) for path in (self.path, self.previous) if path.exists()]
        for path, meta, arrays in found:
            if iterations is None or meta["iterations"] == iterations:
                self._restore(path, meta, arrays, pruner, method)
                self._written = meta["step"]
                return Counters(**{field.name: meta[field.name] for field in dataclasses.fields(Counters)})
        if not found or any(meta["started"] == iterations for _, meta, _ in found):
            return None
        saved = " and ".join(str(meta["iterations"]) for _, meta, _ in found)
        raise ValueError(
            f"{self.path} holds the pruning state after {saved} steps of the optimizer, but the model's has done "
            f"{iterations}. Load the weights and optimizer that were saved then, for instance by BackupAndRestore, or "
            "delete the file to prune anew"
        )

    def _restore(
        self, path: pathlib.Path, meta: Mapping[str, Any], arrays: Mapping[str, Any], pruner: Pruner, method: Method
    ) -> None:
        variables = method.variables()
        names = {name.removeprefix("method/") for name in arrays if name.startswith("method/")}
        expected = [(target.name, list(target.shape)) for target in pruner.targets]
        if [(t["name"], t["shape"]) for t in meta["targets"]] != expected:
            raise ValueError(f"{path} is of other layers: {[t['name'] for t in meta['targets']]}. {_REMEDY}")
        if meta["method"] != method.name or names != set(variables):
            raise ValueError(f"{path} is of the method {meta['method']!r}, not of {method!r}. {_REMEDY}")
        for i, (target, saved) in enumerate(zip(pruner.targets, meta["targets"], strict=True)):
            target.structure = _restored(target, saved, path)
            size = target.size
            mask = np.unpackbits(arrays[f"mask/{i}"], count=size).astype(bool).reshape(target.shape)
            target.mask_variable.assign(mask)
            target.take_mask()
        for name, variable in variables.items():
            variable.assign(arrays[f"method/{name}"])


_REMEDY = "Prune with the same arguments as then, or delete the file to prune anew"


def _read(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays.pop("meta").tobytes())
        if meta["version"] != VERSION:
            raise ValueError(f"version {meta['version']}")
    except (EOFError, KeyError, OSError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no pruning state of this version ({error}); delete it to prune anew") from error
    return meta, arrays


def _arguments(structure: Any) -> dict[str, Any]:
    if not dataclasses.is_dataclass(structure) or isinstance(structure, type):
        return {}
    values = {field.name: getattr(structure, field.name) for field in dataclasses.fields(structure)}
    return {
        name: {_NAME: value.name, **_arguments(value)} if isinstance(value, Structure) else value
        for name, value in values.items()
    }


def _restored(target: Target, saved: Mapping[str, Any], path: pathlib.Path) -> Any:
    """Return the structure with what it once took from the weights."""
    now = _arguments(target.structure)
    # An argument that is None is one that is taken from the weights.
    if target.structure.name != saved["structure"] or not _same(now, saved["arguments"]):
        raise ValueError(f"{path} has another structure for {target.name!r} than {target.structure!r}. {_REMEDY}")
    return _with(target.structure, saved["arguments"])


def _same(now: Mapping[str, Any], saved: Mapping[str, Any]) -> bool:
    """Compare a structure's arguments, and those of a structure within it."""
    return now.keys() == saved.keys() and all(
        value is None
        or (isinstance(value, dict) and isinstance(saved[name], dict) and _same(value, saved[name]))
        or (not isinstance(value, dict) and json.loads(json.dumps(value)) == saved[name])
        for name, value in now.items()
    )


def _with(structure: Any, arguments: Mapping[str, Any]) -> Any:
    if not arguments.keys() - {_NAME}:
        return structure
    values = {
        name: _with(inner, value) if isinstance(inner := getattr(structure, name), Structure) else value
        for name, value in arguments.items()
        if name != _NAME
    }
    # dataclasses.replace is typed for dataclasses, which structures are by custom only.
    return dataclasses.replace(structure, **values)
