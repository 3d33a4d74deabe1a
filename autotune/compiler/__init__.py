"""Cross-compilation of rendered kernels for a GPU that need not be there, and what it tells."""
