"""Throughput of the engine beside Hugging Face's ways to run the same requests."""
