"""Rows by a tensor: how a trace takes them and sets them, and which of them are copies."""

__all__: list[str] = []
