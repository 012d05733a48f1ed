"""Makes checkpoints that say anything, with the right checksum: what an attacker, or a fault elsewhere, could write."""

import json
import zlib

from functrain import checkpoint

START = b'{"__metadata__":{"functrain.crc32":"'


def read(path):
    """Return the fields of a header, its manifest, and the data of a file."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    fields = json.loads(raw[8 : 8 + length])
    manifest = json.loads(fields.pop("__metadata__")["functrain.manifest"])
    return fields, manifest, raw[8 + length :]


def text_of(fields, manifest):
    """Return the text of a header without its checksum."""
    inside = b'00000000","functrain.manifest":' + json.dumps(json.dumps(manifest)).encode() + b"}"
    return START + inside + (b"," if fields else b"") + json.dumps(fields).encode()[1:]


def sealed(text, data=b""):
    """Return a whole file from the text of a header, whose checksum is put in, and data."""
    length = len(text).to_bytes(8, "little")
    place = len(START)
    number = zlib.crc32(length + text[:place] + b"00000000" + text[place + 8 :])
    return length + text[:place] + b"%08x" % number + text[place + 8 :] + data


def forge(path, change):
    """Write a file as `change(fields, manifest, data)` makes it, which returns the new data or None for the same."""
    fields, manifest, data = read(path)
    changed = change(fields, manifest, data)
    path.write_bytes(sealed(text_of(fields, manifest), data if changed is None else changed))


def saved(folder, value, **options):
    """Save a value, and return its file."""
    path = folder / "a.safetensors"
    checkpoint.save(path, value, **options)
    return path
