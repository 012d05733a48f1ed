"""The header of a checkpoint: that of a safetensors file, with a manifest in its metadata and a checksum of itself.

    8 bytes     the length of the header, little-endian
    header      {"__metadata__":{"functrain.crc32":"........","functrain.manifest":"{...}"},"params.0.weight":{...},...}
    data        the elements of the tensors one after another, without gaps

The checksum covers the length and the header, its own eight digits taken as zeros. It is looked at before anything is
parsed. The manifest has the checksums of the data, a CRC-32 for each piece of 8 MiB of each tensor.
"""

import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

import attrs
import torch

from functrain.checkpoint.format.elements import NAMES, STORED, is_dense, name_of
from functrain.checkpoint.format.outlines import check_outline, is_number_or_text
from functrain.errors import CorruptFile, NewerFormat

FORMAT = 1
PIECE = 8 * 2**20
MOST_BYTES = 100_000_000
"""How long a header may be; safetensors refuses longer ones too."""

MOST_BRACKETS = 8_000_000
"""How many objects and lists a header may have: parsed, each takes some hundred bytes."""

START = b'{"__metadata__":{"functrain.crc32":"'
_DIGITS = slice(len(START), len(START) + 8)
_ZEROS = b"00000000"


@attrs.frozen
class Entry:
    """A tensor of a file.

    Attributes:
        dtype: its dtype.
        shape: its shape.
        stride: its strides.
        begin: where its data begins, counted from the end of the header.
        nbytes: how many bytes it has.
        crc32: the checksums of its pieces.
        device: where it was when it was saved, for people to read.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    begin: int
    nbytes: int
    crc32: tuple[int, ...] = ()
    device: str = "cpu"


@attrs.frozen
class Header:
    """What a header says.

    Attributes:
        entries: the tensors by name, in the order of their data.
        outline: where everything stands, see `outlines`.
        info: what the user wrote beside the value, numbers and strings by name.
        versions: the versions of the libraries that saved it, by name, for people to read.
        time: when it was saved, UTC, as in 2026-01-31T12:00:00Z.
        number: the number among the checkpoints of a folder, or None.
    """

    entries: Mapping[str, Entry]
    outline: Any
    info: Mapping[str, Any]
    versions: Mapping[str, str]
    time: str
    number: int | None = None


def count_pieces(nbytes: int) -> int:
    """Return how many pieces, with a checksum each, the data of a tensor has.

    >>> count_pieces(0), count_pieces(1), count_pieces(PIECE + 1)
    (0, 1, 2)
    """
    return -(-nbytes // PIECE)


def checksums(data: memoryview) -> tuple[int, ...]:
    """Return the checksums of the pieces of a tensor's data.

    >>> checksums(memoryview(b"")), checksums(memoryview(b"123456789"))
    ((), (3421780262,))
    """
    return tuple(zlib.crc32(data[i : i + PIECE]) for i in range(0, len(data), PIECE))


def encode(header: Header) -> bytes:
    """Return a header as it stands in a file, its length before it.

    Entries without checksums yet take as many bytes as they will with them.

    >>> encode(Header({}, 3, {}, {}, ""))[8:44]
    b'{"__metadata__":{"functrain.crc32":"'
    """
    manifest = {
        "format": FORMAT,
        "versions": dict(header.versions),
        "time": header.time,
        "number": header.number,
        "info": dict(header.info),
        "tensors": {name: _manifest_entry(entry) for name, entry in header.entries.items()},
        "value": header.outline,
    }
    tensors = {name: _safetensors_entry(entry) for name, entry in header.entries.items()}
    inside = '","functrain.manifest":' + _json(_json(manifest)) + "}"
    after = _json(tensors)[1:]
    text = START + _ZEROS + inside.encode() + (b"," if tensors else b"") + after.encode()
    text += b" " * (-len(text) % 8)
    length = len(text).to_bytes(8, "little")
    return length + text[: _DIGITS.start] + b"%08x" % checksum(length, text) + text[_DIGITS.stop :]


def checksum(length: bytes, text: bytes) -> int:
    """Return the checksum of a header.

    >>> checksum(bytes(8), START + b"12345678") == checksum(bytes(8), START + b"00000000")
    True
    """
    crc = zlib.crc32(length + START + _ZEROS)
    return zlib.crc32(memoryview(text)[_DIGITS.stop :], crc)


# An outline holds nothing twice, so that nobody need look for circles in it.
_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode


def _manifest_entry(entry: Entry) -> dict[str, Any]:
    numbers = entry.crc32 or (0,) * count_pieces(entry.nbytes)
    crc32 = "".join(f"{number:08x}" for number in numbers)
    return {"dtype": name_of(entry.dtype), "stride": list(entry.stride), "device": entry.device, "crc32": crc32}


def _safetensors_entry(entry: Entry) -> dict[str, Any]:
    stored = STORED[entry.dtype]
    shape = [*entry.shape, 2] if stored.pair else list(entry.shape)
    return {"dtype": stored.code, "shape": shape, "data_offsets": [entry.begin, entry.begin + entry.nbytes]}


# Reading. What stands in a file is believed only after it was checked.


def parse(length: bytes, text: bytes, data_bytes: int) -> Header:
    """Return what a header says, that begins as ours do and of which `data_bytes` bytes of data follow.

    Raises:
        NewerFormat: it was saved by a newer functrain, in a format that this one does not know.
        CorruptFile: it was altered, or is none of a checkpoint; the message is the reason alone.

    >>> raw = encode(Header({}, 3, {}, {}, ""))
    >>> parse(raw[:8], raw[8:], 0).outline
    3
    """
    if text[_DIGITS] != b"%08x" % checksum(length, text):
        raise CorruptFile("its header was altered: the checksum is another")
    if text.count(b"[") + text.count(b"{") > MOST_BRACKETS:
        raise CorruptFile(f"its header has more than {MOST_BRACKETS} lists and objects")
    try:
        return _header(_loads(text.decode()), data_bytes)
    except RecursionError:
        raise CorruptFile("its header is nested too deeply") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # JSON and Unicode errors are values too
        if isinstance(error, (CorruptFile, NewerFormat)):
            raise
        raise CorruptFile(f"its header does not make sense: {error}") from None


def looks_like(length: bytes, start: bytes) -> str:
    r"""Return what a file may be instead of a checkpoint, by its first 8 bytes and those after.

    >>> looks_like(b"PK\x03\x04....", b"")
    'it looks like a pickle (torch.save writes such), which functrain never loads'
    """
    if length[:1] == b"\x80" or length[:2] == b"PK":
        return "it looks like a pickle (torch.save writes such), which functrain never loads"
    if start.startswith(b"{"):
        return "it looks like a plain safetensors file, which safetensors.torch.load_file reads"
    return "its first bytes are others"


def _loads(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a key comes twice")
    return fields


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _header(fields: dict[str, Any], data_bytes: int) -> Header:
    metadata = fields.pop("__metadata__")
    _check(list(metadata) == ["functrain.crc32", "functrain.manifest"], "its metadata has other keys")
    manifest = _loads(metadata["functrain.manifest"])
    version = manifest["format"]
    _check(type(version) is int, "the format must be a number")
    if version > FORMAT:
        raise NewerFormat(
            f"it has format {version}, and this functrain reads up to {FORMAT}; install a newer functrain"
        )
    keys = {"format", "versions", "time", "number", "info", "tensors", "value"}
    _check(version == FORMAT and manifest.keys() == keys, "the manifest has other keys")
    _check(manifest["tensors"].keys() == fields.keys(), "the manifest and the header list other tensors")
    entries = {name: _entry(fields[name], manifest["tensors"][name]) for name in _by_place(fields)}
    end = 0
    for name, entry in entries.items():
        _check(entry.begin == end, f"the data of {name!r} begins at {entry.begin}, not at {end}")
        end += entry.nbytes
    _check(end == data_bytes, f"the tensors take {end} bytes, and there are {data_bytes}")
    check_outline(manifest["value"], entries)
    return Header(entries, manifest["value"], *_describe(manifest))


def _describe(manifest: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str], str, int | None]:
    info, versions, time, number = (manifest[key] for key in ("info", "versions", "time", "number"))
    _check(
        isinstance(info, dict) and all(is_number_or_text(value) for value in info.values()),
        "info must be numbers by name",
    )
    _check(isinstance(versions, dict) and all(type(v) is str for v in versions.values()), "versions must be strings")
    _check(type(time) is str, "the time must be a string")
    _check(number is None or _is_size(number), "the number must be a whole number")
    return info, versions, time, number


def _by_place(fields: dict[str, Any]) -> list[str]:
    for name, field in fields.items():
        _check(
            isinstance(field, dict) and field.keys() == {"dtype", "shape", "data_offsets"}, f"{name!r} has other keys"
        )
        places = field["data_offsets"]
        _check(isinstance(places, list) and len(places) == 2 and all(map(_is_size, places)), f"{name!r} is nowhere")
    return sorted(fields, key=lambda name: fields[name]["data_offsets"])


def _entry(field: dict[str, Any], manifest: dict[str, Any]) -> Entry:
    _check(manifest.keys() == {"dtype", "stride", "device", "crc32"}, "a tensor has other keys")
    dtype, stride, device, digits = (manifest[key] for key in ("dtype", "stride", "device", "crc32"))
    _check(dtype in NAMES and STORED[NAMES[dtype]].code == field["dtype"], f"no tensor of {dtype} is so stored")
    stored, shape = STORED[NAMES[dtype]], field["shape"]
    _check(isinstance(shape, list) and len(shape) <= 64 and all(map(_is_size, shape)), "a shape must be sizes")
    if stored.pair:
        _check(shape[-1:] == [2], "pairs must have a last axis of 2")
        shape = shape[:-1]
    _check(math.prod(max(size, 1) for size in shape) * stored.size < 2**63, "a shape is larger than any memory")
    begin, end = field["data_offsets"]
    _check(end - begin == math.prod(shape) * stored.size, "a tensor has another size than its shape says")
    _check(isinstance(stride, list) and len(stride) == len(shape), "strides must be as many as axes")
    _check(all(_is_size(step) and step < 2**60 for step in stride), "strides must be sizes")
    _check(is_dense(shape, stride), "strides must be those of a tensor without gaps and overlaps")
    _check(type(device) is str, "a device must be a name")
    return Entry(NAMES[dtype], tuple(shape), tuple(stride), begin, end - begin, _numbers(digits, end - begin), device)


def _numbers(digits: Any, nbytes: int) -> tuple[int, ...]:
    right = (
        type(digits) is str and len(digits) == 8 * count_pieces(nbytes) and not set(digits) - set("0123456789abcdef")
    )
    _check(right, "a checksum must be eight digits for each piece")
    return tuple(int(digits[i : i + 8], 16) for i in range(0, len(digits), 8))


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _check(right: bool, reason: str) -> None:
    if not right:
        raise ValueError(reason)
