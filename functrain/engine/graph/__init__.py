"""Graphs: what shares memory, loops, and in `passes` what rewrites a graph."""

__all__: list[str] = []
