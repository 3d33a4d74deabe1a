"""A small serving engine on tuned kernels; it sees `autotune` only through its registry and GPU facts."""
