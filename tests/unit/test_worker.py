"""A worker's process may crash, hang, chatter or be killed: only that call fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from null_engines import null_engine
from raudo import worker
from raudo.errors import DataError, EngineError, RaudoError, WorkerError
from raudo.worker import Worker

IMAGES = sorted((Path(__file__).parents[2] / "samples/coco-mini/images/val").glob("*.jpg"))
IMAGE = IMAGES[0]
ROUGH = """
import ctypes, os, signal, sys, time
from raudo import worker
from raudo.measuring import station
from raudo.errors import DataError

class Rough(station.Station):
    def abort(self): os.abort()
    def segfault(self): ctypes.string_at(0)
    def killed(self): os.kill(os.getpid(), signal.SIGKILL)
    def leave(self): os._exit(7)
    def hang(self): time.sleep(600)
    def fail(self): raise ValueError("first line\\nlast line")
    def silent(self): raise ValueError
    def refuse(self): raise DataError("a bad image", hint="take another")
    def unpicklable(self): return lambda: 0
    def echo(self, value): return value
    def chatter(self):
        print("printed")
        os.write(1, b"written by C\\n")
        os.system("echo by a child")
        return 5


worker.serve(Rough())
"""
posix = pytest.mark.skipif(sys.platform == "win32", reason="ends processes by POSIX signals")


@pytest.fixture
def rough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers do what engines do on a bad day."""
    monkeypatch.setattr(worker, "PROGRAM", ROUGH)


@posix
@pytest.mark.usefixtures("rough")
@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("abort", "crashed with SIGABRT"),
        ("segfault", "crashed with SIGSEGV"),
        ("killed", "was killed (out of memory?)"),
        ("leave", "ended with exit code 7"),
        ("unpicklable", "ended with exit code 1"),
    ],
)
def test_a_process_that_dies_is_an_error_that_says_how(action: str, said: str) -> None:
    with Worker("the engine") as one:
        with pytest.raises(WorkerError) as caught:
            one.call(action)
        assert said in caught.value.message
        assert "the engine" in caught.value.message
        with pytest.raises(WorkerError):  # and it stays dead
            one.call("echo", 1)
    assert not psutil.pid_exists(one.pid)


@pytest.mark.usefixtures("rough")
def test_a_process_that_hangs_is_ended_at_its_limit() -> None:
    with Worker("the engine", timeout=1.5) as one:
        with pytest.raises(WorkerError, match="gave no answer to 'hang' in 2 s") as caught:
            one.call("hang")
        assert "--timeout" in caught.value.hint
    assert not psutil.pid_exists(one.pid)


@pytest.mark.usefixtures("rough")
def test_an_exception_is_told_and_the_process_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Worker("the engine", log=log) as one:
        with pytest.raises(WorkerError, match=r"^ValueError: last line$"):
            one.call("fail")
        with pytest.raises(WorkerError, match=r"^ValueError: ValueError$"):
            one.call("silent")
        assert one.call("echo", {"still": [1, 2]}) == {"still": [1, 2]}
    assert "Traceback" in log.read_text()
    assert "in fail" in log.read_text()


@pytest.mark.usefixtures("rough")
def test_our_own_errors_travel_with_their_class_and_hint(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Worker("the engine", log=log) as one, pytest.raises(DataError) as caught:
        one.call("refuse")
    assert (caught.value.message, caught.value.hint) == ("a bad image", "take another")
    assert "Traceback" in log.read_text()


def test_our_own_errors_leave_no_trace_where_none_is_wanted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(worker, "PROGRAM", ROUGH.replace("Rough())", "Rough(), traces=False)"))
    log = tmp_path / "log"
    with Worker("the engine", log=log) as one:
        with pytest.raises(DataError):
            one.call("refuse")
        assert log.read_text() == ""
        with pytest.raises(WorkerError):
            one.call("fail")
    assert "in fail" in log.read_text()


@pytest.mark.usefixtures("rough")
def test_what_libraries_print_goes_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Worker("the engine", log=log) as one:
        assert one.call("chatter") == 5
        assert one.call("echo", "still in step") == "still in step"
    assert set(log.read_text().split("\n")) >= {"printed", "written by C", "by a child"}


@pytest.mark.usefixtures("rough")
def test_an_interrupt_does_not_wait_for_a_busy_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "GRACE_SECONDS", 600.0)
    one = Worker("the engine").__enter__()
    assert one.call("echo", 1) == 1
    worker.send(one._process.stdin, ("hang", ()))  # type: ignore[arg-type]
    one.__exit__(KeyboardInterrupt, None, None)
    assert not psutil.pid_exists(one.pid)


@pytest.mark.slow
@posix
@pytest.mark.parametrize("death", ["os._exit(1)", "os.kill(os.getpid(), 9)"])
def test_the_process_ends_when_its_parent_dies(death: str) -> None:
    code = (
        "import os; from raudo.worker import Worker\n"
        "with Worker('orphan') as one:\n"
        "    one.call('peak_memory')\n"
        f"    print(one.pid, flush=True); {death}\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    pid = int(ended.stdout)
    try:
        orphan = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    gone, alive = psutil.wait_procs([orphan], timeout=30)
    assert [p.pid for p in gone] == [pid], alive


@pytest.mark.parametrize(
    "error",
    [c("what", hint="then") for c in (RaudoError, *RaudoError.__subclasses__())],
    ids=lambda e: type(e).__name__,
)
def test_every_error_survives_the_way_between_processes(error: RaudoError, tmp_path: Path) -> None:
    with (tmp_path / "frame").open("wb") as out:
        worker.send(out, error)
    with (tmp_path / "frame").open("rb") as back:
        read = worker.receive(back)
    assert type(read) is type(error)
    assert (read.message, read.hint, str(read)) == ("what", "then", "what")


@pytest.mark.parametrize("kept", [0, 4, 8, 20])
def test_a_frame_that_is_cut_off_is_the_end(tmp_path: Path, kept: int) -> None:
    file = tmp_path / "frame"
    with file.open("wb") as out:
        worker.send(out, "x" * 100)
    file.write_bytes(file.read_bytes()[:kept])
    with file.open("rb") as back, pytest.raises(EOFError):
        worker.receive(back)


def test_an_engine_is_opened_timed_evaluated_and_probed(tmp_path: Path) -> None:
    engine = null_engine(tmp_path / "one.npz")
    with Worker("null") as one:
        with pytest.raises(WorkerError, match="no engine is open"):
            one.call("time", [0])
        opened = one.call("open", engine, 2, 1, 1, False)
        decoded = one.call("load_frames", [IMAGE])
        timed = one.call("time", [0, 1, 2])
        (found,) = one.call("evaluate", [IMAGE])
        (probe,) = one.call("probe", [IMAGE])
        memory = one.call("peak_memory")
        assert one.call("throughput", 0.05) > 0
    assert opened.load_seconds > 0
    assert opened.audit.note
    assert len(decoded) == 1
    assert len(timed) == 3
    assert all(second > 0 for stages in timed for second in stages)
    assert len(found) >= len(probe.detections) > 0
    assert len(probe.prepared_sha256) == 64
    assert 1e6 < memory < 8e9


def test_streams_find_what_one_by_one_finds_and_in_order(tmp_path: Path) -> None:
    engine = null_engine(tmp_path / "one.npz")
    found = []
    with Worker("null") as one:
        for streams in (1, 3):
            one.call("open", engine, 3, streams, 1, False)
            found.append(one.call("evaluate", IMAGES[:12]))
    assert len({d.boxes.tobytes() for d in found[0]}) > 6  # the images differ in size
    for ours, theirs in zip(*found, strict=True):
        assert np.array_equal(ours.boxes, theirs.boxes)
        assert np.array_equal(ours.scores, theirs.scores)
        assert np.array_equal(ours.labels, theirs.labels)


def test_an_engine_that_was_replaced_is_not_opened(tmp_path: Path) -> None:
    engine = null_engine(tmp_path / "one.npz")
    engine.write_bytes(engine.read_bytes() + b"x")
    with Worker("null") as one, pytest.raises(EngineError, match="not the file"):
        one.call("open", engine, 1, 1, 1, False)


@pytest.mark.slow
def test_peak_memory_is_the_process_s_own(tmp_path: Path) -> None:
    """Not its parent's, which may be much larger when the process starts."""
    ballast = bytearray(os.urandom(1 << 20) * 400)
    with Worker("small") as one:
        assert one.call("peak_memory") < len(ballast)
