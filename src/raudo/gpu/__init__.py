"""NVIDIA GPUs, the thread that uses one, memory and graphs, the library built with and run."""
