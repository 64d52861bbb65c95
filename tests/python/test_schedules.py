"""The schedules against tfmot's own."""

from __future__ import annotations

from typing import Any

import pytest

from keras_prune import ConstantSparsity, PolynomialDecay
from keras_prune.schedules import SCHEDULES, Schedule, as_schedule

ARGUMENTS = [
    ("ConstantSparsity", {"target_sparsity": 0.5, "begin_step": 0}),
    ("ConstantSparsity", {"target_sparsity": 0.0, "begin_step": 7, "end_step": 7, "frequency": 1}),
    ("ConstantSparsity", {"target_sparsity": 0.999, "begin_step": 3, "end_step": 150, "frequency": 11}),
    ("ConstantSparsity", {"target_sparsity": 0.3, "begin_step": 10, "end_step": 30, "frequency": 100}),
    ("PolynomialDecay", {"initial_sparsity": 0.0, "final_sparsity": 0.8, "begin_step": 0, "end_step": 200}),
    (
        "PolynomialDecay",
        {"initial_sparsity": 0.5, "final_sparsity": 0.9, "begin_step": 13, "end_step": 101, "power": 1, "frequency": 7},
    ),
    (
        "PolynomialDecay",
        {"initial_sparsity": 0.9, "final_sparsity": 0.2, "begin_step": 0, "end_step": 50, "power": 2.5, "frequency": 3},
    ),
]


@pytest.fixture(scope="module")
def tfmot() -> Any:
    module = pytest.importorskip("tensorflow_model_optimization")
    return module.sparsity.keras


@pytest.mark.parametrize(("name", "arguments"), ARGUMENTS)
def test_every_step_is_as_in_tfmot(tfmot: Any, name: str, arguments: dict[str, Any]) -> None:
    ours, theirs = SCHEDULES[name](**arguments), getattr(tfmot, name)(**arguments)
    for step in range(0, 260):
        due, sparsity = ours(step)
        expected_due, expected_sparsity = theirs(step)
        assert due == bool(expected_due), step
        assert sparsity == pytest.approx(float(expected_sparsity), abs=1e-6), step


@pytest.mark.parametrize(("name", "arguments"), ARGUMENTS)
def test_configurations_are_exchanged_with_tfmot(tfmot: Any, name: str, arguments: dict[str, Any]) -> None:
    ours, theirs = SCHEDULES[name](**arguments), getattr(tfmot, name)(**arguments)
    assert ours.get_config() == theirs.get_config()
    assert as_schedule(theirs) == ours
    assert SCHEDULES[name].from_config(ours.get_config()["config"]) == ours


BAD = [
    ("ConstantSparsity", {"target_sparsity": 1.0, "begin_step": 0}, "target_sparsity"),
    ("ConstantSparsity", {"target_sparsity": -0.1, "begin_step": 0}, "target_sparsity"),
    ("ConstantSparsity", {"target_sparsity": float("nan"), "begin_step": 0}, "target_sparsity"),
    ("ConstantSparsity", {"target_sparsity": 0.5, "begin_step": -1}, "begin_step"),
    ("ConstantSparsity", {"target_sparsity": 0.5, "begin_step": 5, "end_step": 4}, "ends before it begins"),
    ("ConstantSparsity", {"target_sparsity": 0.5, "begin_step": 5, "end_step": -2}, "end_step"),
    ("ConstantSparsity", {"target_sparsity": 0.5, "begin_step": 0, "frequency": 0}, "frequency"),
    ("PolynomialDecay", {"initial_sparsity": 0, "final_sparsity": 0.5, "begin_step": 0, "end_step": -1}, "end_step"),
    ("PolynomialDecay", {"initial_sparsity": 0, "final_sparsity": 0.5, "begin_step": 9, "end_step": 8}, "ends before"),
    ("PolynomialDecay", {"initial_sparsity": 2, "final_sparsity": 0.5, "begin_step": 0, "end_step": 8}, "initial_"),
    ("PolynomialDecay", {"initial_sparsity": 0, "final_sparsity": 1, "begin_step": 0, "end_step": 8}, "final_"),
]


@pytest.mark.parametrize(("name", "arguments", "message"), BAD)
def test_what_tfmot_refuses_is_refused(tfmot: Any, name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SCHEDULES[name](**arguments)
    if message != "target_sparsity" or arguments["target_sparsity"] == arguments["target_sparsity"]:
        with pytest.raises(ValueError, match=r"."):
            getattr(tfmot, name)(**arguments)


def test_a_schedule_of_one_step_jumps() -> None:
    schedule = PolynomialDecay(0.1, 0.8, begin_step=5, end_step=5)
    assert [schedule(step) for step in (4, 5, 6)] == [(False, pytest.approx(0.1)), (True, 0.8), (False, 0.8)]


def test_callables_of_others_are_asked_as_they_are(tfmot: Any) -> None:
    class EverySecondStep(tfmot.PruningSchedule):
        def __call__(self, step: int) -> tuple[bool, float]:
            return step % 2 == 0, 0.25

        def get_config(self) -> dict[str, Any]:
            return {}

    assert as_schedule(EverySecondStep())(4) == (True, 0.25)
    assert as_schedule(lambda step: (step == 3, 0.5))(3) == (True, 0.5)
    assert as_schedule(lambda step: (step == 3, 0.5)).sparsity(9) == 0.5


@pytest.mark.parametrize("nonsense", [0.8, "cubic", None, ConstantSparsity])
def test_what_is_no_schedule_is_refused(nonsense: Any) -> None:
    with pytest.raises(ValueError, match="schedule must be"):
        as_schedule(nonsense)


def test_repr_and_equality() -> None:
    schedule = ConstantSparsity(0.5, begin_step=2)
    assert repr(schedule) == "ConstantSparsity(target_sparsity=0.5, begin_step=2, end_step=-1, frequency=100)"
    assert eval(repr(schedule)) == schedule
    assert schedule != ConstantSparsity(0.5, begin_step=3)
    assert schedule != "ConstantSparsity"
    assert len({schedule, ConstantSparsity(0.5, 2)}) == 1
    assert isinstance(schedule, Schedule)
