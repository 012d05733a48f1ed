"""Whatever a file is, it is restored right or refused with its name and the reason, and nothing else happens."""

import json
import os
import pickle
import random
import struct
import sys
import tracemalloc
from contextlib import contextmanager

import pytest
import torch
from forging import START, forge, read, saved, sealed, text_of
from safetensors.torch import save_file

from functrain import checkpoint
from functrain.checkpoint.format import header, reading
from functrain.errors import CorruptFile, NewerFormat, NoCheckpoint

VALUE = {"layer": {"weight": torch.randn(5, 3), "bias": [torch.ones(2), 1, None, float("inf"), "a"]}, "n": 3}
EVENTS: list | None = None


def _hook(event, arguments):
    if EVENTS is not None:
        EVENTS.append((event, arguments))


sys.addaudithook(_hook)  # there is no way to take one off again


@contextmanager
def nothing_happens(monkeypatch):
    """Fail if anything is executed, imported, written or allocated for a tensor, or much memory is used."""
    global EVENTS
    monkeypatch.setattr(reading, "_empty", lambda entry: pytest.fail("memory was allocated for a tensor"))
    tracemalloc.start()
    EVENTS = []
    try:
        yield
    finally:
        events, EVENTS = EVENTS, None
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        monkeypatch.undo()
    assert peak < 3_000_000
    written = [
        a for e, a in events if e == "open" and (a[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    ]
    assert written == []
    allowed = {"open", "os.listdir", "os.scandir", "object.__getattr__", "sys._getframe", "gc.get_objects", "id"}
    assert {event for event, _ in events} - allowed == set()


@pytest.mark.parametrize(
    "act",
    [
        lambda folder: (folder / "a").write_bytes(b""),
        lambda folder: (folder / "a").unlink(missing_ok=True),
        lambda folder: pickle.loads(pickle.dumps(Harmful)),
        lambda folder: eval("1"),
        lambda folder: bytes(4_000_000),
        lambda folder: reading._empty(None),
    ],
)
def test_the_watch_sees_what_happens(tmp_path, monkeypatch, act):
    with pytest.raises((AssertionError, pytest.fail.Exception)), nothing_happens(monkeypatch):
        act(tmp_path)


def refused(path, reason="", error=CorruptFile):
    with pytest.raises(error) as caught:
        checkpoint.restore(path)
    assert str(caught.value).startswith(f"cannot restore {path}: "), caught.value
    assert reason in str(caught.value), caught.value


# Altered and truncated


def test_any_byte_of_the_header_altered(tmp_path):
    path = saved(tmp_path, VALUE, info={"step": 3})
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    numbers = random.Random(0)
    for place in range(8 + length):
        for flip in (0x20, numbers.randrange(1, 256)):  # the first makes capitals of letters
            path.write_bytes(raw[:place] + bytes([raw[place] ^ flip]) + raw[place + 1 :])
            refused(path)


def test_any_byte_of_the_data_altered(tmp_path):
    big = {"a": torch.randn(300_000), "b": torch.randn(1000), "c": torch.zeros(5, dtype=torch.bool)}
    path = saved(tmp_path, big)
    raw = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    numbers = random.Random(0)
    with open(path, "r+b", buffering=0) as file:
        for place in [start, len(raw) - 1, *(numbers.randrange(start, len(raw)) for _ in range(1000))]:
            os.pwrite(file.fileno(), bytes([raw[place] ^ numbers.randrange(1, 256)]), place)
            refused(path, "was altered, between the bytes")
            os.pwrite(file.fileno(), bytes([raw[place]]), place)
    assert torch.equal(checkpoint.load(path)["a"], big["a"])


def test_the_altered_piece_is_named(tmp_path, monkeypatch):
    for module in (header, reading, sys.modules["functrain.checkpoint.format.writing"]):
        monkeypatch.setattr(module, "PIECE", 1000)
    path = saved(tmp_path, {"a": torch.zeros(100, dtype=torch.uint8), "b": torch.zeros(5000, dtype=torch.uint8)})
    start = path.stat().st_size - 5100
    raw = bytearray(path.read_bytes())
    raw[start + 100 + 2500] = 1
    path.write_bytes(raw)
    refused(path, f"the data of 'b' was altered, between the bytes {start + 2100} and {start + 3100} of the file")


def test_two_altered_tensors_of_several_pieces_leave_no_worker_behind(tmp_path):
    path = saved(tmp_path, {str(i): torch.zeros(3_000_000, dtype=torch.int32) for i in range(4)})
    raw = bytearray(path.read_bytes())
    raw[-1] = raw[-20_000_000] = 1
    path.write_bytes(raw)
    for _ in range(5):
        refused(path, "was altered")


def test_truncated_at_any_length(tmp_path):
    path = saved(tmp_path, VALUE)
    raw = path.read_bytes()
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        refused(path)


def test_longer_than_it_was(tmp_path):
    path = saved(tmp_path, VALUE)
    path.write_bytes(path.read_bytes() + b"\0")
    refused(path, "the tensors take")


def test_truncated_while_it_is_read(tmp_path, monkeypatch):
    path = saved(tmp_path, VALUE)
    empty = reading._empty
    shorter = path.stat().st_size - 1
    monkeypatch.setattr(reading, "_empty", lambda entry: os.truncate(path, shorter) or empty(entry))
    refused(path, "it was truncated: the data of")


# What is no checkpoint


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def test_a_pickle_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.safetensors"
    torch.save({"a": Harmful()}, path)
    refused(path, "it looks like a pickle (torch.save writes such), which functrain never loads")
    for protocol in range(6):
        path.write_bytes(pickle.dumps(Harmful(), protocol=protocol))
        refused(path, "a pickle" if protocol > 1 else "its first bytes are others")
    assert not (tmp_path / "harmed").exists()


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.ones(2)}, path)
    refused(path, "it looks like a plain safetensors file, which safetensors.torch.load_file reads")
    for content, reason in [
        (b"", "it is empty, or was not written to its end (0 bytes)"),
        (bytes(5000), "it is empty, or was not written to its end (5000 bytes)"),
        (b"hello, this is a text, and no checkpoint", "it is no checkpoint of functrain; its first bytes are others"),
        (b"\xff" * 8 + START, "it was truncated: its header should have 18446744073709551615 bytes"),
    ]:
        path.write_bytes(content)
        refused(path, reason)


def test_what_is_no_file(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    for name, message in [
        ("missing", "there is no file .*missing"),
        ("nowhere", "there is no file .*nowhere"),
        ("folder", r"folder is a folder; checkpoint.latest\(folder\) restores its newest"),
        ("pipe", "pipe is no regular file"),
        ("loop", "cannot open .*loop: "),
        ("folder/a/b", "there is no file"),
    ]:
        with pytest.raises(NoCheckpoint, match=message):
            checkpoint.restore(tmp_path / name)
    with pytest.raises(NoCheckpoint, match="/dev/zero is no regular file"):
        checkpoint.restore("/dev/zero")


def test_a_link_to_a_checkpoint_is_followed(tmp_path):
    path = saved(tmp_path, 3)
    (tmp_path / "link").symlink_to(path)
    assert checkpoint.load(tmp_path / "link") == 3


# Headers that lie, with the right checksum


def change(keys, new):
    """Return a change of the place that the keys lead to, in the fields or in the manifest."""

    def changed(fields, manifest, data):
        place = {"fields": fields, "manifest": manifest}
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = new

    return changed


W = ("manifest", "tensors", "layer.weight")
F = ("fields", "layer.weight")
V = ("manifest", "value")


def deep(levels, kind="list"):
    outline = 3
    for _ in range(levels):
        outline = {kind: [outline]}
    return outline


LIES = {
    "a newer format": (change(("manifest", "format"), 2), "it has format 2, and this functrain reads up to 1"),
    "an older format": (change(("manifest", "format"), 0), "the manifest has other keys"),
    "a format that is none": (change(("manifest", "format"), "1"), "the format must be a number"),
    "a key more": (change(("manifest", "code"), "import os"), "the manifest has other keys"),
    "a class": (change(V, {"builtins.eval": ["1"]}), "{'builtins.eval': ...} is nothing that is saved"),
    "a path": (change((*W, "file"), "../../etc/passwd"), "a tensor has other keys"),
    "two kinds": (change(V, {"list": [], "dict": []}), "a dict of 2 is nothing that is saved"),
    "a bare list": (change(V, [1]), "a list of 1 is nothing that is saved"),
    "no kind": (change(V, {}), "a dict of 0 is nothing that is saved"),
    "a tensor that is missing": (change(V, {"list": [{"tensor": "x"}]}), "stands nowhere in the value"),
    "a tensor without name": (change(V, {"tensor": 3}), "{'tensor': ...} is nothing that is saved"),
    "no tensor": (change(V, 3), "the tensor 'layer.bias.0' stands nowhere in the value"),
    "a tensor of the manifest alone": (change(("manifest", "tensors", "x"), {}), "list other tensors"),
    "too deep": (change(V, deep(101)), "it is deeper than 100 levels"),
    "a path twice": (change(V, {"dict": [["a.b", 1], ["a", {"dict": [["b", 1]]}]]}), "two leaves have the path 'a.b'"),
    "a key twice": (change(V, {"dict": [["a", 1], ["a", 2]]}), "a key comes twice"),
    "a key that is none": (change(V, {"dict": [[None, 1]]}), "must list pairs of a key and what it holds"),
    "a true key": (change(V, {"dict": [[True, 1]]}), "must list pairs of a key and what it holds"),
    "a field that is a number": (change(V, {"record": [[1, 1]]}), "a record must list pairs"),
    "no pairs": (change(V, {"dict": ["ab"]}), "must list pairs of a key and what it holds"),
    "a dict that is a dict": (change(V, {"dict": {"a": 1}}), "what is in a dict must be listed"),
    "a float that is none": (change(V, {"float": "1e9"}), "{'float': ...} is nothing that is saved"),
    "half a complex number": (change(V, {"complex": [1.0]}), "{'complex': ...} is nothing that is saved"),
    "a complex number of strings": (change(V, {"complex": ["1", "2"]}), "{'complex': ...} is nothing that is saved"),
    "a long number": (change(V, 1 << 5000), "is nothing that is saved"),
    "a number of 5000 digits": (change(("manifest", "number"), 10**4000), "the number must be a whole number"),
    "info that is a list": (change(("manifest", "info"), [1]), "info must be numbers by name"),
    "info of tensors": (
        change(("manifest", "info"), {"a": {"tensor": "layer.weight"}}),
        "info must be numbers by name",
    ),
    "versions of numbers": (change(("manifest", "versions"), {"torch": 2}), "versions must be strings"),
    "a time that is none": (change(("manifest", "time"), 3), "the time must be a string"),
    "a manifest entry that is none": (change(W, 3), "its header does not make sense"),
    "another dtype": (change((*W, "dtype"), "float16"), "no tensor of float16 is so stored"),
    "a dtype that is none": (change((*W, "dtype"), "Tensor"), "no tensor of Tensor is so stored"),
    "a dtype that is a list": (change((*W, "dtype"), ["float32"]), "its header does not make sense"),
    "a stored dtype that is none": (change((*F, "dtype"), "F4"), "no tensor of float32 is so stored"),
    "a pair that is none": (change((*W, "dtype"), "complex128"), "no tensor of complex128 is so stored"),
    "strides of another length": (change((*W, "stride"), [1]), "strides must be as many as axes"),
    "negative strides": (change((*W, "stride"), [-3, 1]), "strides must be sizes"),
    "strides that are none": (change((*W, "stride"), "31"), "strides must be as many as axes"),
    "strides beyond all memory": (change((*W, "stride"), [3, 2**62]), "strides must be sizes"),
    "strides with gaps": (change((*W, "stride"), [2**40, 1]), "a tensor without gaps and overlaps"),
    "strides that overlap": (change((*W, "stride"), [0, 0]), "a tensor without gaps and overlaps"),
    "a device that is none": (change((*W, "device"), 3), "a device must be a name"),
    "no checksums": (change((*W, "crc32"), ""), "a checksum must be eight digits for each piece"),
    "checksums that are none": (change((*W, "crc32"), "0x123456"), "a checksum must be eight digits"),
    "a gigantic shape": (change((*F, "shape"), [2**40, 2**20]), "a tensor has another size than its shape says"),
    "a shape beyond all memory": (change((*F, "shape"), [0, 2**62, 2**62]), "a shape is larger than any memory"),
    "a negative shape": (change((*F, "shape"), [-5, -3]), "a shape must be sizes"),
    "a shape of floats": (change((*F, "shape"), [5.0, 3.0]), "a shape must be sizes"),
    "a shape of truth values": (change((*F, "shape"), [True] * 15), "a shape must be sizes"),
    "a shape of many axes": (change((*F, "shape"), [1] * 63 + [5, 3]), "a shape must be sizes"),
    "a place beyond the end": (change((*F, "data_offsets"), [2**50, 2**50 + 60]), "begins at"),
    "a place before the beginning": (change((*F, "data_offsets"), [-60, 0]), "'layer.weight' is nowhere"),
    "a place backwards": (change((*F, "data_offsets"), [60, 0]), "another size than its shape says"),
    "a place of three": (change((*F, "data_offsets"), [0, 60, 60]), "'layer.weight' is nowhere"),
    "a place that another has": (change((*F, "data_offsets"), [8, 68]), "begins at"),
    "a field more": (change((*F, "code"), 3), "'layer.weight' has other keys"),
    "a field that is none": (change(F, 3), "its header does not make sense"),
    "more data": (lambda fields, manifest, data: data + b"1234", "the tensors take 68 bytes, and there are 72"),
    "less data": (lambda fields, manifest, data: data[:-1], "the tensors take 68 bytes, and there are 67"),
}


@pytest.mark.parametrize(("lie", "reason"), LIES.values(), ids=LIES)
def test_a_header_that_lies_is_refused(tmp_path, monkeypatch, lie, reason):
    path = saved(tmp_path, VALUE)
    forge(path, lie)
    error = NewerFormat if "it has format" in reason else CorruptFile
    with nothing_happens(monkeypatch):
        refused(path, reason, error)


def test_an_honest_header_that_was_forged_is_restored(tmp_path):
    path = saved(tmp_path, VALUE)
    forge(path, lambda fields, manifest, data: None)
    assert checkpoint.load(path)["n"] == 3


TEXTS = {
    "a key twice in the header": lambda text: text.replace(b'{"dtype"', b'{"dtype": "F32", "dtype"', 1),
    "a key twice in the manifest": lambda text: text.replace(rb"{\"format\"", rb"{\"format\": 1, \"format\"", 1),
    "a tensor twice": lambda text: text[:-1] + b', "n": {}, "n": {}}',
    "no JSON": lambda text: text[:-1],
    "no text": lambda text: text + b"\xff",
    "more than one": lambda text: text + b"{}",
    "a number that is none": lambda text: text.replace(rb"\"number\": null", rb"\"number\": NaN"),
    "a manifest that is a number": lambda text: START + b'00000000","functrain.manifest":3}}',
    "another metadata": lambda text: text.replace(b',"functrain.manifest"', b',"a":"b","functrain.manifest"'),
    "no manifest": lambda text: START + b'00000000"}}',
    "a deep header": lambda text: text[:-1] + b',"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "a deep manifest": lambda text: text.replace(rb"\"number\": null", rb"\"number\": " + b"[" * 9999 + b"]" * 9999),
    "many brackets": lambda text: text + b"[" * (header.MOST_BRACKETS + 1),
    "many digits": lambda text: text.replace(rb"\"number\": null", rb"\"number\": " + b"1" * 10_000),
}


@pytest.mark.parametrize("change", TEXTS.values(), ids=TEXTS)
def test_a_header_that_no_json_library_writes_is_refused(tmp_path, change):
    path = saved(tmp_path, VALUE)
    fields, manifest, data = read(path)
    path.write_bytes(sealed(change(text_of(fields, manifest)), data))
    refused(path)


def test_a_header_of_too_many_bytes_is_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", header.MOST_BYTES + 1) + START)
        file.truncate(2 * header.MOST_BYTES)  # a file of holes, which takes no place
    with nothing_happens(monkeypatch):
        refused(path, "its header would have 100000001 bytes, and 100000000 are the most")


def test_what_was_altered_is_found_in_an_outline_too(tmp_path):
    path = saved(tmp_path, VALUE)
    forge(path, LIES["strides that overlap"][0])
    with pytest.raises(CorruptFile, match="a tensor without gaps"):
        checkpoint.outline(path)


def test_the_header_is_what_plain_safetensors_expects(tmp_path):
    raw = saved(tmp_path, VALUE).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert length % 8 == 0 and set(json.loads(raw[8 : 8 + length])["__metadata__"]) == {
        "functrain.crc32",
        "functrain.manifest",
    }
