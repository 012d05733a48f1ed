"""The file: a value taken apart, its outline, the header with its checksums, and what is written and read.

Nothing here knows of folders or of structures to restore into. Read `outlines` first.
"""

__all__ = []
