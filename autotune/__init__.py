"""Compiler-driven autotuning of Triton kernels; importing this loads no torch, triton or optuna."""

__version__ = "0.1.0"
