"""Scans: loops that a trace records as one node, under any transforms; `README.md` gives the reading order."""

__all__ = []
