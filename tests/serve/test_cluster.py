"""Folders shared out over a Ray cluster: the lines are those of one machine."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from null_engines import null_engine
from raudo.cluster import detect_folder
from raudo.commands.detect import DetectRequest
from raudo.errors import UsageError
from raudo.listener import Listener

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five photographs of several sizes, and one file that only looks like one."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(5):
        picture = np.random.default_rng(number).integers(0, 255, (40 + number, 60, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    (folder / "2b.png").write_bytes(b"no image")
    return folder


@pytest.mark.slow
def test_a_cluster_writes_the_lines_of_one_machine(tmp_path: Path, folder: Path) -> None:
    engine = null_engine(tmp_path / "model.npz")
    summaries = []
    for name, options in (("one.jsonl", []), ("many.jsonl", ["--cluster"])):
        command = ["detect", str(engine), str(folder), "--jsonl", str(tmp_path / name), "--json"]
        ended = subprocess.run(
            [sys.executable, "-m", "raudo.cli", *command, *options],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        summaries.append(json.loads(ended.stdout))
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "many.jsonl").read_bytes()
    one, many = ({k: s[k] for k in ("frames", "detections", "skipped")} for s in summaries)
    assert one == many
    assert one["frames"] == 5
    assert len(one["skipped"]) == 1


@pytest.mark.parametrize("source", ["images/0.png", "images"])
def test_a_cluster_takes_folders_only_and_draws_nothing(
    tmp_path: Path, folder: Path, source: str
) -> None:
    request = DetectRequest(
        engine=null_engine(tmp_path / "model.npz"),
        source=str(tmp_path / source),
        output=tmp_path / "drawn" if source == "images" else None,
    )
    with pytest.raises(UsageError, match="in folders only, and draws nothing"):
        detect_folder(request, Listener())
