"""Converts models/model.onnx to TensorRT (models/model.fp16.engine), or says why not."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from hu04 import convert

sys.exit(convert(sys.argv[1:]))
