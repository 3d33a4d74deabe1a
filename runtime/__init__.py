"""A small serving engine on tuned kernels.

It sees `autotune` only through its registry and its GPU facts.
"""

__version__ = "0.1.0"
