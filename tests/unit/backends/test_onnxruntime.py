"""What ONNX Runtime tells of an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from raudo.backends.base import Resources
from raudo.backends.onnxruntime import OnnxRuntime

if TYPE_CHECKING:
    from raudo.records import Artifact

pytest.importorskip("onnxruntime", reason="NO ONNX RUNTIME: it goes untested")


def test_pixels_that_are_cast_are_not_shown_as_int8(tiny_artifact: Artifact) -> None:
    spec = tiny_artifact.manifest.spec
    with OnnxRuntime().open(tiny_artifact, Resources()) as engine:
        nodes = engine.profile(np.zeros((1, spec.height, spec.width, 3), np.uint8))
    found = {(node.type, node.precision) for node in nodes}
    assert ("Cast", "uint8") in found
    assert "int8" not in {precision for _, precision in found}
