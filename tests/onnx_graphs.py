"""Runs ONNX graphs that tests have changed, as ONNX Runtime computes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def run(model: Any, batch: NDArray[Any]) -> list[NDArray[Any]]:
    """Return all outputs of a graph in memory with one input."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, {model.graph.input[0].name: batch}))
