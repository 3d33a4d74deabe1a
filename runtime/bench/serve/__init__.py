"""A server under load, by the names and definitions of `vllm bench serve`."""
