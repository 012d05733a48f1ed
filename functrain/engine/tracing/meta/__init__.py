"""Rules of shapes, strides and dtypes: what an operation returns, without running it."""

__all__: list[str] = []
