"""Scores what one engine found: against the labels, and against the baseline."""

from __future__ import annotations
