"""What is done in the place of functions that draw, write or checkpoint, while a module runs."""

__all__: list[str] = []
