"""One training step: the stages, what is differentiated, handlers, weights and precision."""

__all__: list[str] = []
