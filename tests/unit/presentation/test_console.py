"""What the command line shows fits the terminal, and keeps standard output for results."""

from __future__ import annotations

import contextlib
import io
import signal
from typing import Any

import pytest
from rich.console import Console

from raudo.presentation import console
from raudo.records import Candidate, Interval, Percentiles, Speedup


def candidate(name: str) -> Candidate:
    return Candidate(
        name=name,
        backend="any",
        precision="int8",
        status="OK",
        latency_ms=Percentiles(p50=311.1, p90=400, p95=500, p99=1178.5, mean=320),
        speedup=Speedup(median=10.25, low=9.75, high=11.25),
        map50=0.502,
        map50_95=0.323,
        map50_loss_percent=Interval(value=1.22, low=-1.5, high=13.33),
        similarity_percent=94.9,
        throughput_fps=142.2,
    )


def lines(width: int) -> list[str]:
    shown = Console(file=io.StringIO(), width=width)
    names = ("onnxruntime-fp32@416x320", "openvino-int8")
    shown.print(console.candidates_table([candidate(name) for name in names], width))
    return [line.rstrip() for line in shown.file.getvalue().splitlines()]  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_table_has_one_line_a_candidate(width: int) -> None:
    shown = lines(width)
    assert len(shown) == 3
    assert "…" not in "".join(shown)
    for figure in ("311.1", "1178.5", "10.25x", "0.502", "1.22", "94.9", "142.2"):
        assert figure in shown[1]


def test_intervals_are_shown_where_there_is_room() -> None:
    assert "[9.75, 11.25]" in lines(120)[1]
    assert "0.323" in lines(120)[1]
    assert "[9.75" not in lines(80)[1]


def test_nothing_is_minus_zero() -> None:
    tiny = Interval(value=-0.001, low=-0.004, high=0.002)
    row = candidate("any").model_copy(update={"map50_loss_percent": tiny})
    shown = Console(file=io.StringIO(), width=200)
    shown.print(console.candidates_table([row], 200))
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    assert "0.00 [0.00, 0.00]" in text
    assert "-0.00" not in text


def test_progress_writes_nothing_where_nobody_looks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with console.ProgressListener() as listener:
        listener.step("Working", 3)
        listener.advance(2)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("tell", ["step", "advance", "finished"])
def test_ctrl_c_that_a_library_swallowed_ends_the_work_all_the_same(tell: str) -> None:
    words: dict[str, tuple[Any, ...]] = {"advance": (1,), "finished": ("one", "OK", "")}
    before = signal.getsignal(signal.SIGINT)
    with console.ProgressListener() as listener:
        typed: Any = signal.getsignal(signal.SIGINT)
        with contextlib.suppress(KeyboardInterrupt):
            typed(signal.SIGINT, None)  # a real one may end this process, and other tests with it
        with pytest.raises(KeyboardInterrupt):
            getattr(listener, tell)(*words.get(tell, ("next",)))
    assert signal.getsignal(signal.SIGINT) == before


def test_candidates_are_told_on_standard_error_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with console.ProgressListener() as listener:
        listener.finished("one", "FAILED", "[bold] is no markup")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "one" in shown.err
    assert "[bold] is no markup" in shown.err


@pytest.mark.parametrize(("terminal", "broken"), [(False, False), (True, True)])
def test_a_line_is_broken_for_a_terminal_alone(terminal: bool, broken: bool) -> None:
    shown = console.Lines(file=io.StringIO(), width=80, force_terminal=terminal, color_system=None)
    shown.say("undecided on the loss of mAP@0.5 " * 4)
    assert (len(shown.file.getvalue().splitlines()) > 1) == broken  # type: ignore[attr-defined]
