"""A Gaussian process over knobs: exact inference, length scales by maximum a posteriori.

A Matérn-5/2 kernel with a length scale per feature, as is usual in Bayesian optimisation (Snoek,
Larochelle, Adams 2012). Few trials say little about many length scales: a log-normal prior whose
centre grows with the square root of the number of features keeps them sane (Hvarfner, Hellsten,
Nardi 2024).
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from autotune.search.candidates import Array

_ROOT5 = np.sqrt(5.0)
_PRIOR_WIDTH = 1.0
"""Standard deviation of the logarithm of a length scale."""
_NOISE = 1e-2
"""Centre of the prior of the noise variance; the signal's is 1."""
_ITERATIONS = 15
_JITTER = 1e-6


class GaussianProcess:
    """Fitted to some points; predicts mean and deviation at others."""

    def __init__(self, points: Array, targets: Array) -> None:
        """Fit length scales to `points` [n, features], each in 0..1, and standardised `targets`."""
        self._points = points
        features = points.shape[1]
        self._centre = 0.5 * float(np.log(features)) + float(np.log(0.5)) - 0.5
        gaps = (points.T[:, :, None] - points.T[:, None, :]) ** 2  # [features, n, n]
        start = np.append(np.full(features, self._centre), np.log(_NOISE))
        found = minimize(
            self._loss,
            start,
            args=(gaps, targets),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": _ITERATIONS},
            bounds=[(-4.0, 4.0)] * features + [(np.log(1e-4), np.log(0.5))],
        )
        self._scales = np.exp(found.x[:-1])
        self._noise = float(np.exp(found.x[-1])) + _JITTER
        self.condition(points, targets)

    def condition(self, points: Array, targets: Array) -> None:
        """Take these points instead of those seen so far; length scales stay."""
        self._points = points
        kernel, _ = _matern(_squared(points / self._scales, points / self._scales))
        self._factor = cholesky(kernel + self._noise * np.eye(len(points)), lower=True)
        self._weights = cho_solve((self._factor, True), targets)

    def predict(self, asked: Array) -> tuple[Array, Array]:
        """Mean and standard deviation at `asked` [m, features]."""
        shared, _ = _matern(_squared(self._points / self._scales, asked / self._scales))  # [n, m]
        reach = solve_triangular(self._factor, shared, lower=True)
        variance = np.maximum(1.0 - np.einsum("nm,nm->m", reach, reach), 1e-9)
        return shared.T @ self._weights, np.sqrt(variance)

    def _loss(self, logs: Array, gaps: Array, targets: Array) -> tuple[float, Array]:
        """Negative logarithm of the posterior of the parameters, and its gradient."""
        scaled = gaps * np.exp(-2.0 * logs[:-1])[:, None, None]
        kernel, slope = _matern(scaled.sum(axis=0))
        noise = np.exp(logs[-1])
        eye = np.eye(len(targets))
        try:
            factor = cholesky(kernel + (noise + _JITTER) * eye, lower=True)
        except LinAlgError:  # rounding: no such parameters, please
            return 1e10, np.zeros_like(logs)
        inverse = cho_solve((factor, True), eye)
        weights = inverse @ targets
        drop = 0.5 * (inverse - np.outer(weights, weights))
        away = np.append((logs[:-1] - self._centre) / _PRIOR_WIDTH, logs[-1] - np.log(_NOISE))
        loss = 0.5 * targets @ weights + np.log(np.diag(factor)).sum() + 0.5 * away @ away
        gradient = np.append(
            scaled.reshape(len(scaled), -1) @ (drop * slope).ravel(), noise * np.trace(drop)
        )
        away[:-1] /= _PRIOR_WIDTH
        return float(loss), gradient + away


def _squared(left: Array, right: Array) -> Array:
    """Squared distances [len(left), len(right)]."""
    norms = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)
    return np.asarray(np.maximum(norms - 2.0 * left @ right.T, 0.0), dtype=np.float64)


def _matern(squared: Array) -> tuple[Array, Array]:
    """Kernel at squared distances; and what, times a feature's share of them, is its slope."""
    distance = np.sqrt(squared)
    fall = np.exp(-_ROOT5 * distance)
    kernel = (1.0 + _ROOT5 * distance + 5.0 / 3.0 * squared) * fall
    return kernel, 5.0 / 3.0 * (1.0 + _ROOT5 * distance) * fall
