"""Exports a model to ONNX and, where it can be done, to TensorRT."""

import sys

from hu04 import export

sys.exit(export(sys.argv[1:]))
