"""The parts that model families are put together from; each takes its weights when built."""
