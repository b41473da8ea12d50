"""NVIDIA GPUs without PyTorch: memory and graphs, the inference library built with and run."""
