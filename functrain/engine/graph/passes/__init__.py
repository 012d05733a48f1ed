"""Passes over a graph, each of which rewrites it: writes made values, and the graph made simpler or quicker."""

__all__: list[str] = []
