"""A candidate that detects other things than the baseline, in a service as people start it."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from null_engines import null_run
from raudo.cli import app
from serving import served

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
IMAGE = cv2.imencode(".png", np.full((60, 80, 3), 90, np.uint8))[1].tobytes()
ENOUGH = 400


def variant(address: str) -> str:
    """Send an image; return who answered."""
    asked = urllib.request.Request(f"{address}/v1/detect", IMAGE, {"Content-Type": "image/png"})  # noqa: S310
    with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310
        return str(json.load(answer)["variant"])


def report(source: str | Path) -> tuple[int, str]:
    ended = CliRunner().invoke(app, ["ab", "report", str(source)])
    return ended.exit_code, " ".join(ended.output.split())


def swap(address: str, run: str, token: str) -> None:
    body, headers = json.dumps({"run": run}).encode(), {"Authorization": f"Bearer {token}"}
    asked = urllib.request.Request(f"{address}/v1/admin/swap", body, headers)  # noqa: S310
    urllib.request.urlopen(asked, timeout=30).close()  # noqa: S310


def test_a_candidate_that_detects_other_things_goes_and_stays_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAUDO_ADMIN_TOKEN", "secret")
    run, better = null_run(tmp_path / "monday", seed=1), null_run(tmp_path / "tuesday")
    with served(run, "--shadow", "baseline") as address:
        assert variant(address) == "primary"
        assert report(address)[0] == 3
        assert any(variant(address) == "baseline" for _ in range(ENOUGH))
        code, said = report(address)
        assert code == 1
        assert "agreement is worse by at least" in said
        swap(address, better.name, "secret")
        assert variant(address) == "primary"
        assert report(address)[0] == 3
    assert report(run) == (code, said)
    with served(run, "--shadow", "baseline") as address:
        assert variant(address) == "baseline"


def test_a_candidate_that_detects_the_same_stays(tmp_path: Path) -> None:
    run = null_run(tmp_path / "run")
    with served(run, "--ab", "baseline=50", "--guard", "latency=1000") as address:
        assert {variant(address) for _ in range(60)} == {"primary", "baseline"}
        code, said = report(address)
        assert code in (0, 3), said
