"""The modes that see what no operation shows, and stay on wherever code of the user's runs."""

__all__: list[str] = []
