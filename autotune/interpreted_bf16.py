"""Arithmetic in bf16 for Triton's interpreter, which has none.

The interpreter keeps bf16 as NumPy's `uint16` and calculates with these bits as integers, so that
only loads, stores and casts to fp32 come out right; casts to bf16 cut off. Here bf16 is a NumPy
dtype of its own, that of `ml_dtypes` (https://github.com/jax-ml/ml_dtypes): each operation is done
in fp32 and rounded once, to nearest even, as by the bf16 instructions of a GPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Casts:
    """Stands in for Triton's `_convert_float`, which takes and returns a float's bits."""

    def __init__(self, others: Callable[..., Array], bf16: Any, fp32: Any) -> None:
        self._others = others
        self._bf16 = bf16  # triton's types
        self._fp32 = fp32

    def __call__(self, given: Array, source: Any, target: Any, rounding: Any) -> Any:
        """Bits of `given`, which is of type `source`, in type `target`: by way of fp32 if bf16."""
        import ml_dtypes

        if source != self._bf16 and target != self._bf16:
            return self._others(given, source, target, rounding)
        if source == self._bf16:
            wide = given.view(ml_dtypes.bfloat16).astype(np.float32)
        elif source == self._fp32:
            wide = given
        else:
            wide = self._others(given, source, self._fp32, rounding).view(np.float32)
        if target == self._bf16:
            return wide.astype(ml_dtypes.bfloat16).view(np.uint16)
        if target == self._fp32:
            return wide.view(np.uint32)
        return self._others(wide, self._fp32, target, rounding)


class Atomics:
    """Stands in for `create_atomic_rmw`: programs run one by one, so load and store will do."""

    def __init__(self, others: Callable[..., Any], interpreter: Any, addition: Any) -> None:
        self._others = others
        self._interpreter = interpreter
        self._addition = addition

    def __call__(
        self, builder: Any, op: Any, ptr: Any, val: Any, mask: Any, sem: Any, scope: Any
    ) -> Any:
        """Add bf16 numbers to memory; the numbers that were there. Other types as ever."""
        import ml_dtypes

        if val.data.dtype != ml_dtypes.bfloat16:
            return self._others(builder, op, ptr, val, mask, sem, scope)
        if op != self._addition:
            raise ValueError(f"of bf16 there are atomic additions only, not {op}")
        memory = self._interpreter._interpreter
        where, what = ptr.data.ravel(), val.data.ravel()
        found = np.zeros_like(what)
        left = np.flatnonzero(np.broadcast_to(mask.data, ptr.data.shape).ravel())
        while left.size:  # once, unless an address is there twice
            places, first = np.unique(where[left], return_index=True)
            now, every = left[first], np.ones(places.shape, dtype=np.bool_)
            found[now] = memory.load(places, every, np.zeros_like(what[now]), what.dtype)
            memory.store(places, found[now] + what[now], every)
            left = np.delete(left, first)
        return self._interpreter.TensorHandle(found.reshape(val.data.shape), val.dtype.scalar)


def teach_bf16() -> None:
    """Give this process's interpreter bf16; nothing where Triton compiles, or has it by now.

    Raises:
        ModuleNotFoundError: ml_dtypes is not installed.
    """
    interpreter: Any = sys.modules.get("triton.runtime.interpreter")
    if interpreter is None or isinstance(interpreter._convert_float, Casts):
        return
    language = interpreter.tl
    # Triton's own functions were made when it was imported: they tell whether it interprets.
    if not isinstance(language.cdiv, interpreter.InterpretedFunction):
        return
    import ml_dtypes

    own = interpreter._get_np_dtype
    known = {language.bfloat16.name: np.dtype(ml_dtypes.bfloat16)}

    def numpy_dtype(of: Any) -> Any:
        element = of.scalar  # Triton's own makes a table of all types at each of many calls
        if element.name not in known:
            known[element.name] = own(element)
        return known[element.name]

    def constant(builder: Any, value: float) -> Any:
        data = np.array([value], dtype=ml_dtypes.bfloat16)
        return interpreter.TensorHandle(data, language.bfloat16)

    interpreter._get_np_dtype = numpy_dtype
    interpreter._convert_float = Casts(
        interpreter._convert_float, language.bfloat16, language.float32
    )
    builder = interpreter.InterpreterBuilder
    builder.get_bf16 = constant
    atomics = Atomics(builder.create_atomic_rmw, interpreter, interpreter._ir.ATOMIC_OP.FADD)
    builder.create_atomic_rmw = lambda builder, *given: atomics(builder, *given)
