"""Builds that fail: what is told of it."""

from __future__ import annotations

import pytest

from raudo.gpu.build import _failure

OUT = "2: [virtualMemoryBuffer.cpp::resizePhysical::160] Error Code 2: OutOfMemory\nRequested"
AFTER = "2: [builder.cpp::buildSerializedNetwork::751] Error Code 2: Internal Error (no engine)"


class Log:
    def __init__(self, *errors: str) -> None:
        self.errors = list(errors)

    def reason(self) -> str:
        return self.errors[-1]


@pytest.mark.parametrize(
    ("log", "said", "hint"),
    [(Log(OUT, AFTER), "OutOfMemory", "smaller batch"), (Log(AFTER), "no engine", "the log")],
    ids=["memory", "something else"],
)
def test_a_build_that_fails_tells_the_cause_in_one_line(log: Log, said: str, hint: str) -> None:
    error = _failure("TensorRT 8.5.3", log)
    assert said in error.message
    assert "\n" not in error.message
    assert hint in error.hint
