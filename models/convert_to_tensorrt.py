"""Converts models/model.onnx to TensorRT; for now it says why that is skipped."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from hu04 import engine, skip_tensorrt

engine()
skip_tensorrt()
