"""Graphs of networks: edited, folded for translation, written as other formats."""
