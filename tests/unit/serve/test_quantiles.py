"""Quantiles in constant memory."""

from __future__ import annotations

import math

import numpy as np
import pytest

from raudo.serve.quantiles import Quantiles


def test_close_to_the_exact_ones() -> None:
    values = np.random.default_rng(0).lognormal(2, 1, 5000)
    counted = Quantiles()
    for value in values:
        counted.add(value)
    for share in (0.01, 0.5, 0.95, 0.99, 1.0):
        exact = np.quantile(values, share, method="inverted_cdf")
        assert counted.at(share) == pytest.approx(exact, rel=0.011)


def test_without_any() -> None:
    assert math.isnan(Quantiles().at(0.5))
