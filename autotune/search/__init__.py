"""Searching a legal space with Optuna: the only package that imports it."""
