"""Backends: each builds the engine files of one runtime and runs them."""
