"""Times models/model.onnx against PyTorch: is it at least 1.5 times as fast?"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from hu04 import data, engine, model, raudo

onnx, reference = engine(), model()
sys.exit(raudo("benchmark", onnx, "--model", reference, "--images", data(reference), *sys.argv[1:]))
