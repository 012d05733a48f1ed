"""From graph to graph: what shares memory, writes made values, simpler graphs, loops."""

__all__: list[str] = []
