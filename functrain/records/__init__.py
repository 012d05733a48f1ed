"""What all records share: how they read, in a terminal and in a notebook, and how they are pickled."""

__all__: list[str] = []
