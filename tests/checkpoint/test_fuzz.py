"""Random files: whatever stands in one, it is restored or refused as corrupt, and no other error comes out."""

import copy
import os
import random

import pytest
import torch
from forging import forge, read, saved, sealed, text_of

from functrain import checkpoint
from functrain.errors import CorruptFile, NewerFormat

BUDGET = int(os.environ.get("FUNCTRAIN_FUZZ", "1500"))
"""How many files are tried; a fixed number, so that the same are tried each time."""

VALUE = {
    "layer": {"weight": torch.randn(5, 3), "bias": torch.randn(3, 5).T, "z": torch.randn(2, dtype=torch.complex128)},
    "history": ({"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": float("nan")}),
    "empty": [torch.zeros(0, 3), torch.tensor(3), None, "text", 1j],
}

ODD = [None, True, False, 0, -1, 1, 2, 3, 2**31, 2**63, 2**64, 10**30, 0.5, -0.0, 1e308, "", "a", "nan", "float32"]
ODD += ["C64", "layer.weight", "../../a", "\0", "00000000", "0" * 16, [], [[]], {}, [0, 60], [1, 2], [2**62] * 3]
ODD += [{"tensor": "layer.weight"}, {"list": []}, {"float": "nan"}, {"record": [["a", 1]]}, {"dict": [[1, 2]]}]
TOKENS = [b"{", b"}", b"[", b"]", b",", b":", b'"', rb"\"", b"\\", b"0", b"-", b"1e9", b"null", b"NaN", b"\xff", b"\0"]


def places(data, path=()):
    """Return every place in JSON data, as the keys on the way to it."""
    inside = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(place for key, child in list(inside) for place in places(child, (*path, key)))]


def at(data, path):
    for key in path:
        data = data[key]
    return data


def mutate(root, numbers):
    """Change one place of a header: another value, that of another place, a key gone, a key more."""
    everywhere = [path for path in places(root) if path]
    path, other = numbers.choice(everywhere), numbers.choice(everywhere)
    place, key = at(root, path[:-1]), path[-1]
    kind = numbers.randrange(5)
    if kind == 0:
        place[key] = copy.deepcopy(numbers.choice(ODD))
    elif kind == 1:
        place[key] = copy.deepcopy(at(root, other))
    elif kind == 2:
        del place[key]
    elif kind == 3 and isinstance(place, list):
        place.insert(key, copy.deepcopy(at(root, other)))
    elif isinstance(place, dict):
        place[numbers.choice(["a", "dtype", "tensor", "list", "info"])] = copy.deepcopy(at(root, other))
    elif type(place[key]) is int:
        place[key] += numbers.choice([-8, -1, 1, 8])


def outcome(path):
    """Restore a file, and return what came of it in a word."""
    try:
        found = checkpoint.restore(path)
        checkpoint.load(path)
        repr(found)
    except (CorruptFile, NewerFormat) as error:
        assert str(error).startswith(f"cannot restore {path}: "), error
        return "refused"
    return "restored"


def test_headers_changed_at_random_with_the_right_checksum(tmp_path):
    path = saved(tmp_path, VALUE, info={"step": 3})
    whole = path.read_bytes()
    numbers = random.Random(0)
    came = {"refused": 0, "restored": 0}
    for _ in range(BUDGET // 3):
        path.write_bytes(whole)

        def change(fields, manifest, data):
            for _ in range(numbers.choice([1, 1, 2, 5])):
                mutate({"fields": fields, "manifest": manifest}, numbers)
            return data[: numbers.randrange(len(data))] if numbers.random() < 0.1 else data

        forge(path, change)
        came[outcome(path)] += 1
    # Both come often, or the changes would be too wild or too tame to find anything.
    assert min(came.values()) > BUDGET / 100, came


def test_texts_changed_at_random_with_the_right_checksum(tmp_path):
    path = saved(tmp_path, VALUE)
    fields, manifest, data = read(path)
    text = text_of(fields, manifest)
    numbers = random.Random(1)
    for _ in range(BUDGET // 3):
        changed = bytearray(text)
        for _ in range(numbers.choice([1, 2, 5])):
            begin = numbers.randrange(60, len(changed))
            piece = numbers.choice(TOKENS) * numbers.choice([1, 1, 3])
            changed[begin : begin + numbers.choice([0, 1, 1, 10, 200])] = piece
        path.write_bytes(sealed(bytes(changed), data))
        outcome(path)


def test_bytes_changed_at_random_are_always_refused(tmp_path):
    path = saved(tmp_path, VALUE)
    whole = path.read_bytes()
    numbers = random.Random(2)
    for _ in range(BUDGET // 3):
        changed = bytearray(whole)
        for _ in range(numbers.choice([1, 2, 10])):
            begin = numbers.randrange(len(changed))
            piece = numbers.randbytes(numbers.choice([0, 1, 4, 100]))
            changed[begin : begin + numbers.choice([0, 1, 4, 100])] = piece
        path.write_bytes(changed)
        assert outcome(path) == "refused" or changed == whole


def test_a_fault_in_reading_would_be_seen(tmp_path, monkeypatch):
    path = saved(tmp_path, VALUE)
    monkeypatch.setattr("functrain.checkpoint.files.read_tensors", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        outcome(path)
