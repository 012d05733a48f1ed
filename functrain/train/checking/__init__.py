"""What is looked at before training: the parts, padding, and what a saved run fits to."""

__all__: list[str] = []
