"""ONNX graphs: edited, folded for translation, written as other formats."""
