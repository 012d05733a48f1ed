"""What is kept of a module, and how it is made anew for each application."""

__all__: list[str] = []
