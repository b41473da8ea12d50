"""Exports a model to ONNX and, where it can be done, to TensorRT."""

import argparse
import sys
from pathlib import Path

from hu04 import data, raudo, skip_tensorrt

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", type=Path, default=Path("model.pt"))
parser.add_argument("--output", type=Path, default=Path("models"))
parser.add_argument("--benchmark", action="store_true", help="time it against PyTorch")
options = parser.parse_args()
code = raudo("export", options.model, "--to", "onnx", "--output", options.output)
if code == 0:
    skip_tensorrt()
    if options.benchmark:
        engine = options.output / f"{options.model.stem}.onnx"
        images = data(options.model)
        code = raudo("benchmark", engine, "--model", options.model, "--images", images)
sys.exit(code)
