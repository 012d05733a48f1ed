"""The call of a compiled function: its arguments, the cache of traces, donation."""

__all__: list[str] = []
