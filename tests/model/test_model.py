"""Some hundred steps of the model test, always the same ones; `tests/model/run` plays a million others."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from model.machine import Machine

SETTINGS = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=12,
    stateful_step_count=25,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)


def test_random_sequences() -> None:
    """The four sums stay zero: shown more than allowed, taken and lost, delivered twice, ended and nobody told."""
    Machine.counted.clear()
    run_state_machine_as_test(Machine, settings=SETTINGS)
    assert Machine.counted["step"] > 100
    assert Machine.counted["mail held"] > 10
