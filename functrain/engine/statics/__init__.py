"""Same is the same: static values, and all that a function closes over, compared by type and value."""

__all__: list[str] = []
