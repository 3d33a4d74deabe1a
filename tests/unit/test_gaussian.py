"""The Gaussian process: its gradient, what it learns, and what it does not know."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from autotune.search.gaussian import GaussianProcess


def wave(points: np.ndarray) -> np.ndarray:
    """Depends on the first of three features alone; about standardised."""
    return np.asarray(np.sin(7.0 * points[:, 0]) * np.sqrt(2.0))


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(0).random((40, 3))


def test_the_gradient_is_that_of_the_loss(points: np.ndarray) -> None:
    process = GaussianProcess(points, wave(points))
    gaps = (points.T[:, :, None] - points.T[:, None, :]) ** 2
    for logs in (np.zeros(4), np.array([-1.0, 0.5, 1.0, -3.0])):
        _, gradient = process._loss(logs, gaps, wave(points))
        slopes = approx_fprime(logs, lambda at: process._loss(at, gaps, wave(points))[0], 1e-6)
        assert gradient == pytest.approx(slopes, rel=1e-3, abs=1e-3)


def test_it_predicts_what_it_has_not_seen(points: np.ndarray) -> None:
    process = GaussianProcess(points, wave(points))
    asked = np.random.default_rng(1).random((200, 3)) * 0.8 + 0.1
    mean, deviation = process.predict(asked)
    assert np.abs(mean - wave(asked)).mean() < 0.1  # guessing the mean is off by 0.9
    assert (np.abs(mean - wave(asked)) < 3 * deviation + 0.05).mean() > 0.95


def test_it_knows_what_it_does_not_know(points: np.ndarray) -> None:
    left = points[points[:, 0] < 0.4]
    process = GaussianProcess(left, wave(left))
    _, near = process.predict(left[:5])
    _, far = process.predict(np.array([[1.0, 0.5, 0.5]]))
    assert far[0] > 3 * near.max()
    process.condition(np.vstack([left, [[1.0, 0.5, 0.5]]]), np.append(wave(left), 0.0))
    _, told = process.predict(np.array([[1.0, 0.5, 0.5]]))
    assert told[0] < far[0] / 2


def test_points_that_are_equal_do_no_harm(points: np.ndarray) -> None:
    twice = np.vstack([points, points])
    mean, deviation = GaussianProcess(twice, wave(twice)).predict(points)
    assert np.isfinite(mean).all()
    assert (deviation > 0).all()
