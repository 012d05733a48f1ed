"""Checkpoints: a value of tensors, numbers and strings in one file that is always whole, or refused in words.

    save(path, value)                   one file, atomically
    load(path), load(path, like)        the value again, in dicts and tuples, or in the structure of `like`
    restore(path)                       the same as a `Saved`: leaves by dotted path, and what is known of the file
    into(saved, like), part(saved, name)    a `Saved` in a structure; one field of it
    migrate(saved, like)                what fits of it, into another structure, with a report
    add(folder, value)                  the newest of a folder; `latest(folder)`, `entries(folder)`, `keep(folder, ...)`
    background()                        saving in a thread, from a copy

A checkpoint is a safetensors file with a manifest in its header; `format.header` says how. Nothing in it is ever
executed or imported: a class comes from the structure that you restore into, never from the file.
"""

from functrain.checkpoint.asynchronous import Background, background
from functrain.checkpoint.files import check_savable, load, outline, restore, save
from functrain.checkpoint.folders import Entry, add, entries, keep, latest
from functrain.checkpoint.holding import hold
from functrain.checkpoint.migrating import Report, migrate
from functrain.checkpoint.saved import Saved, fields_of, into, part
from functrain.checkpoint.structures import Anything, Each, Optional, records_in

__all__ = [
    "Anything",
    "Background",
    "Each",
    "Entry",
    "Optional",
    "Report",
    "Saved",
    "add",
    "background",
    "check_savable",
    "entries",
    "fields_of",
    "hold",
    "into",
    "keep",
    "latest",
    "load",
    "migrate",
    "outline",
    "part",
    "records_in",
    "restore",
    "save",
]


def __dir__() -> list[str]:
    return __all__
