"""The loop: from place to place, phase by phase, chunk by chunk, and what interrupts it."""

__all__: list[str] = []
