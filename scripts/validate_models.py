"""Scores models/model.onnx: is its loss of mAP below 1 %, and its similarity above 98 %?"""

import sys

from hu04 import data, engine, model, raudo

onnx, reference = engine(), model()
sys.exit(raudo("validate", onnx, "--model", reference, "--data", data(reference), *sys.argv[1:]))
