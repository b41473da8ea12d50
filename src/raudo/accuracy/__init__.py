"""Arithmetic on what engines find: boxes, matched with labels and with the baseline's."""
