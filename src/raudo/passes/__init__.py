"""Passes: each makes a faster graph of a graph."""
