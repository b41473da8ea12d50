"""Two variants of a detector under real traffic: split or shadowed, compared, rolled back.

The figures are confidence sequences, so they may be watched at any time (`sequences.py`).
Nothing here knows HTTP.
"""
