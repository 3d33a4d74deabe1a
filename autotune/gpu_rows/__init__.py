"""The GPU table, a file per line of products: one row per product, joined in `arch`."""
