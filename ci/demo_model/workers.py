"""Threads that each take a share of the rows.

Two cores wait for one another four times a step: within each of a step's thousand small operations,
where torch itself would divide the work, waking the other core costs more than it saves.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Workers:
    """A pool for a `with`; while it is open torch computes each operation in one thread."""

    def __init__(self, num_threads: int) -> None:
        self._num_threads = num_threads
        # Number of threads is a property of a thread: the main one and each of the pool are told.
        self._usual = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(
            num_threads, initializer=torch.set_num_threads, initargs=(1,)
        )

    def __enter__(self) -> Workers:
        torch.set_num_threads(1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._usual)

    def map(self, work: Callable[..., T], *tensors: Tensor) -> list[T]:
        """Results for the shares of the first axis, in their order, whoever is ready first."""
        shares = [tensor.tensor_split(self._num_threads) for tensor in tensors]
        filled = [given for given in zip(*shares, strict=True) if len(given[0])]
        return list(self._pool.map(work, *zip(*filled, strict=True)))
