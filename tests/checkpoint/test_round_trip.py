"""What is saved comes back: every kind of leaf and container, bit for bit, also with plain safetensors."""

import math
from collections import OrderedDict, namedtuple

import attrs
import pytest
import torch
from forging import saved
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import functrain as ft
from functrain import checkpoint, tree
from functrain.checkpoint.format import packing
from functrain.checkpoint.format.elements import STORED
from functrain.errors import DonatedValueUsed, DuplicateName, InvalidArgument, NotSavable

Pair = namedtuple("Pair", ["first", "second"])


@attrs.frozen
class Place:
    x: object
    y: object = None


@tree.node
class Node:
    value: object
    unit: str = tree.static(default="m")
    function: object = tree.static(default=None)


def some(dtype, *shape):
    """Return a tensor of any dtype, of random bits."""
    generator = torch.Generator().manual_seed(len(shape))
    count = math.prod(shape) * dtype.itemsize
    bits = torch.randint(0, 256, (count,), dtype=torch.uint8, generator=generator)
    if dtype == torch.bool:
        return (bits % 2).bool().reshape(shape)
    return bits.view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)


def bits(tensor):
    return tensor.contiguous().flatten().view(torch.uint8) if tensor.numel() else tensor.flatten().view(torch.uint8)


def assert_same(a, b):
    assert (a.dtype, a.shape, a.stride()) == (b.dtype, b.shape, b.stride())
    assert torch.equal(bits(a), bits(b))


# Tensors


@pytest.mark.filterwarnings("ignore:B?Complex(Half|32) support is experimental")
@pytest.mark.parametrize("dtype", STORED, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (4, 6)])
def test_a_tensor_of_any_dtype_and_shape_comes_back_bit_for_bit(tmp_path, dtype, shape):
    x = some(dtype, *shape)
    path = saved(tmp_path, {"x": x})
    assert_same(checkpoint.load(path)["x"], x)
    assert_same(checkpoint.load(path, {"x": x})["x"], x)


@pytest.mark.filterwarnings("ignore:B?Complex(Half|32) support is experimental")
@pytest.mark.parametrize("dtype", STORED, ids=str)
def test_plain_safetensors_reads_the_same(tmp_path, dtype):
    x = some(dtype, 4, 6)
    plain = load_file(saved(tmp_path, {"layer": {"x": x}}))["layer.x"]
    assert torch.equal(bits(plain), bits(x))
    if STORED[dtype].dtype == dtype:
        assert (plain.dtype, plain.shape) == (x.dtype, x.shape)


def test_every_dtype_of_torch_is_saved_or_known_to_be_none_for_tensors():
    dtypes = {one for one in vars(torch).values() if isinstance(one, torch.dtype)}
    missing = {str(one) for one in dtypes - set(STORED)}
    # Of these no tensor can be made, or none that is not quantized.
    assert {name for name in missing if not name.startswith(("torch.int", "torch.uint", "torch.bits"))} == {
        "torch.qint8",
        "torch.quint8",
        "torch.qint32",
        "torch.quint4x2",
        "torch.quint2x4",
    }


LAYOUTS = {
    "transposed": lambda x: x.transpose(1, 3),
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "of one row": lambda x: torch.empty_strided((1, 3), (100, 1)).fill_(2.0),
    "permuted": lambda x: x.permute(3, 0, 2, 1),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_strides_come_back(tmp_path, layout):
    x = layout(torch.randn(2, 3, 4, 5))
    path = saved(tmp_path, {"x": x})
    assert_same(checkpoint.load(path)["x"], x)
    assert torch.equal(load_file(path)["x"], x)


@pytest.mark.parametrize(
    "layout", [lambda x: x[:, :2], lambda x: x[::2], lambda x: x[0].expand(5, 3), lambda x: x.T[1:]]
)
def test_gaps_and_overlaps_come_back_as_a_clone_has_them(tmp_path, layout):
    x = layout(torch.randn(4, 3))
    assert_same(checkpoint.load(saved(tmp_path, {"x": x}))["x"], x.clone())


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_conjugates_are_saved_by_value(tmp_path, dtype):
    x = torch.randn(3, dtype=dtype)
    loaded = checkpoint.load(saved(tmp_path, {"conj": x.conj(), "neg": x.conj().imag, "x": x}))
    assert torch.equal(loaded["conj"], x.conj()) and torch.equal(loaded["neg"], x.conj().imag)
    assert torch.equal(loaded["x"], x)


def test_one_tensor_at_two_paths_is_saved_once_and_is_one_again(tmp_path):
    weight = torch.randn(100, 100)
    path = saved(tmp_path, {"embedding": weight, "head": weight, "copy": weight.clone()})
    assert path.stat().st_size < 2 * weight.numel() * 4 + 4000
    assert sorted(load_file(path)) == ["copy", "embedding"]
    for loaded in (checkpoint.load(path), checkpoint.load(path, {k: weight for k in ("embedding", "head", "copy")})):
        assert loaded["embedding"] is loaded["head"]
        assert loaded["copy"].data_ptr() != loaded["head"].data_ptr()
        assert all(torch.equal(loaded[name], weight) for name in loaded)


def test_empty_tensors_at_one_address_are_not_one(tmp_path):
    loaded = checkpoint.load(saved(tmp_path, {"a": torch.zeros(0, 2), "b": torch.zeros(3, 0, dtype=torch.int64)}))
    assert loaded["a"].shape == (0, 2) and loaded["b"].shape == (3, 0) and loaded["b"].dtype == torch.int64


def test_views_of_one_memory_are_saved_by_value(tmp_path):
    x = torch.arange(6.0)
    loaded = checkpoint.load(saved(tmp_path, {"all": x, "part": x[:3], "turned": x.view(2, 3).T}))
    assert torch.equal(loaded["part"], x[:3]) and torch.equal(loaded["turned"], x.view(2, 3).T)
    assert len({t.untyped_storage().data_ptr() for t in loaded.values()}) == 3


def test_restored_tensors_do_not_depend_on_the_file(tmp_path):
    path = saved(tmp_path, {"x": torch.ones(100_000)})
    loaded = checkpoint.load(path)["x"]
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(loaded, torch.ones(100_000))


def test_saving_changes_nothing(tmp_path):
    x = torch.randn(3, requires_grad=True)
    before = x.detach().clone()
    loaded = checkpoint.load(saved(tmp_path, {"x": x, "module": torch.nn.Linear(2, 2).state_dict()}))
    assert x.requires_grad and torch.equal(x, before) and not loaded["x"].requires_grad
    assert torch.equal(loaded["x"], before)


def test_tensors_begin_at_multiples_of_their_elements(tmp_path):
    path = saved(tmp_path, {"a": torch.zeros(3, dtype=torch.uint8), "b": torch.zeros(3, dtype=torch.float64)})
    assert torch.equal(load_file(path)["b"], torch.zeros(3, dtype=torch.float64))


# Data and containers

NUMBERS = [0, 1, -1, 2**63, -(2**200), True, False, 0.1, -0.0, 1e-320, float("inf"), float("-inf"), float("nan")]
DATA = [*NUMBERS, 1j, complex("nan-infj"), complex(-0.0, -0.0), None, "", 'ünï\n\0"\\', "\U0001f600", "a" * 100_000]


@pytest.mark.parametrize("value", DATA, ids=[str(i) for i in range(len(DATA))])
def test_numbers_and_strings_come_back_by_type_and_value(tmp_path, value):
    path = saved(tmp_path, {"v": value})
    for loaded in (checkpoint.load(path)["v"], checkpoint.load(path, {"v": value})["v"]):
        assert type(loaded) is type(value) and repr(loaded) == repr(value)


def test_half_a_surrogate_pair_is_a_string_too(tmp_path):
    path = saved(tmp_path, {"v": "\ud800"})
    assert checkpoint.load(path) == {"v": "\ud800"} and load_file(path) == {}


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.builds(lambda n, d: torch.arange(n).to(d), st.integers(0, 5), st.sampled_from([torch.bfloat16, torch.int64])),
)
keys = st.one_of(st.text("ab_é", max_size=3), st.integers(-3, 300))


def containers(inner):
    return st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=3),
        st.builds(Place, inner, inner),
        st.builds(Node, inner),
        st.builds(Pair, inner, inner),
    )


values = st.recursive(leaves, containers, max_leaves=12)


def parts_agree(a, b):
    """Return whether two values are the same in type, structure and bits."""
    if isinstance(a, torch.Tensor):
        return (
            isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits(a), bits(b))
        )
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(parts_agree(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(parts_agree, a, b))
    if attrs.has(type(a)):
        return all(parts_agree(getattr(a, f.name), getattr(b, f.name)) for f in attrs.fields(type(a)))
    return repr(a) == repr(b)


def unclassed(value):
    """Return a value with dicts of their fields in place of records."""
    if isinstance(value, dict):
        return {key: unclassed(child) for key, child in value.items()}
    if hasattr(value, "_fields"):
        return {name: unclassed(getattr(value, name)) for name in value._fields}
    if isinstance(value, (list, tuple)):
        return type(value)(map(unclassed, value))
    if attrs.has(type(value)):
        fields = {f.name: unclassed(getattr(value, f.name)) for f in attrs.fields(type(value))}
        return (
            fields if not isinstance(value, Node) else {k: v for k, v in fields.items() if k != "function" or v is None}
        )
    return value


@given(values)
@settings(max_examples=200)
def test_any_tree_comes_back(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("any") / "a.safetensors"
    try:
        checkpoint.save(path, value)
    except DuplicateName:
        return  # such as {"": 1} beside a root, or {1: a, "1": b}; a test of its own below
    assert parts_agree(checkpoint.load(path, value), value)
    assert parts_agree(checkpoint.load(path), unclassed(value))
    named = {path for path, leaf in tree.leaves_with_path(unclassed(value)) if isinstance(leaf, torch.Tensor)}
    assert set(load_file(path)) == named


def test_mappings_of_other_classes(tmp_path):
    value = OrderedDict(b=torch.ones(2), a=1)
    path = saved(tmp_path, value)
    loaded = checkpoint.load(path, value)
    assert type(loaded) is OrderedDict and list(loaded) == ["b", "a"] and value["a"] == 1
    assert list(checkpoint.load(path)) == ["b", "a"] and type(checkpoint.load(path)) is dict


def test_a_field_of_the_structure_that_is_a_function_stays_with_the_class(tmp_path):
    path = saved(tmp_path, Node(torch.ones(2), function=print))
    assert checkpoint.load(path, Node(torch.zeros(2), function=max)).function is max
    assert "function" not in checkpoint.load(path)


def test_a_training_state_comes_back(tmp_path):
    learner = ft.Learner(ft.nn.serial(ft.nn.dense(4), ft.nn.dense(2)), ft.losses.mse, ft.optim.adam(lr=0.1))
    state = ft.init(learner, ft.random.key(0), (torch.ones(1, 3), torch.ones(1, 2)))
    ft.save(tmp_path / "state.safetensors", state)
    loaded = ft.load(
        tmp_path / "state.safetensors", ft.init(learner, ft.random.key(1), (torch.ones(1, 3), torch.ones(1, 2)))
    )
    assert type(loaded) is type(state) and tree.equal(loaded, state)


# What cannot be saved


class NoTensor(torch.Tensor):
    pass


UNSAVABLE = {
    "a function": (print, "a builtin_function_or_method"),
    "a class": (int, "a type"),
    "a model": (ft.nn.dense(2).init, "function"),
    "a set": ({1}, "a set"),
    "bytes": (b"a", "a bytes"),
    "a numpy number": (torch.ones(1).numpy()[0], r"use|torch.as_tensor, or with .item\(\)"),
    "a sparse tensor": (torch.eye(2).to_sparse(), r"its layout is torch.sparse_coo; use .to_dense\(\)"),
    "a tensor on meta": (torch.empty(2, device="meta"), "on the device meta and has no values"),
    "a subclass": (torch.ones(2).as_subclass(NoTensor), "it is a NoTensor; convert it to a plain tensor"),
    "a long number": (1 << 5000, "whole numbers of up to 4096 bits can be saved, got 5001"),
    "a key": ({(1, 2): 3}, r"keys of dicts must be strings or whole numbers, got \(1, 2\)"),
    "half a character": ({"\udc00": 3}, "keys of dicts must be strings"),
    "a true key": ({True: 3}, "keys of dicts must be strings"),
}


@pytest.mark.parametrize(("value", "message"), UNSAVABLE.values(), ids=UNSAVABLE)
def test_what_cannot_be_saved_is_named(tmp_path, value, message):
    with pytest.raises(NotSavable, match=rf"^memory\.best\.1: .*({message})"):
        saved(tmp_path, {"memory": {"best": [torch.ones(2), value]}})
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_holds_itself(tmp_path):
    value = []
    value.append(value)
    with pytest.raises(NotSavable, match=r"0\.0\.0\.\.\.: nothing deeper than 100 levels can be saved; does it hold"):
        saved(tmp_path, value)


@pytest.mark.parametrize("value", [{"a.b": 1, "a": {"b": 2}}, {1: 1, "1": 2}, {"": 1, "a": {"": {"": 3}, ".": 4}}])
def test_two_leaves_of_one_path(tmp_path, value):
    with pytest.raises(DuplicateName, match="two leaves have the dotted path"):
        saved(tmp_path, value)


def test_names_that_safetensors_reserves(tmp_path):
    path = saved(tmp_path, {"__metadata__": torch.ones(2), "x": torch.zeros(1)})
    assert torch.equal(checkpoint.load(path)["__metadata__"], torch.ones(2)) and len(load_file(path)) == 2


def test_a_donated_tensor_says_so(tmp_path):
    state = {"w": torch.ones(2)}
    ft.jit(lambda s: {"w": s["w"] + 1}, donate=0)(state)
    with pytest.raises(DonatedValueUsed, match="w was donated"):
        saved(tmp_path, state)


def test_inside_of_a_trace(tmp_path):
    with pytest.raises(NotSavable, match="it belongs to a trace"):
        ft.vmap(lambda x: saved(tmp_path, x) and x)(torch.ones(2))


@pytest.mark.parametrize("info", [{"a": [1]}, {"a": torch.ones(1)}, {1: 2}])
def test_info_is_numbers_and_strings(tmp_path, info):
    with pytest.raises(InvalidArgument, match="info must be numbers, strings and None by name, got"):
        saved(tmp_path, 1, info=info)


@pytest.mark.parametrize("path", ["", 3, None, "a\0b"])
def test_a_path_is_the_name_of_a_file(path):
    for act in (lambda: checkpoint.save(path, 1), lambda: checkpoint.load(path)):
        with pytest.raises(InvalidArgument, match="path must be the name of a file, got"):
            act()


def test_what_is_known_of_a_file(tmp_path):
    info = {"step": 400, "valid/loss": 0.25, "best": float("nan"), "name": "a", "none": None}
    path = saved(tmp_path, {"w": torch.ones(3, 2), "n": 1}, info=info)
    found = checkpoint.restore(path)
    assert repr(found.info) == repr(info) and found.versions["torch"] == torch.__version__
    assert found.time.endswith("Z") and found.number is None and found.size == 24
    assert repr(found) == (
        f"Saved({path}: 2 leaves, 1 tensors of 24 B, step=400, valid/loss=0.25, best=nan, name='a', none=None)"
    )
    assert bool(checkpoint.restore(saved(tmp_path, {})))


def test_functrain_need_not_be_installed(tmp_path, monkeypatch):
    def missing(name):
        raise packing.PackageNotFoundError(name)

    monkeypatch.setattr(packing, "version", missing)
    packing._versions.cache_clear()
    assert checkpoint.restore(saved(tmp_path, 1)).versions["functrain"] == "unknown"
    packing._versions.cache_clear()


def test_an_outline_reads_no_data(tmp_path):
    only = checkpoint.outline(saved(tmp_path, {"w": torch.ones(3, 2).T}))
    assert only.leaves["w"].device.type == "meta" and only.leaves["w"].stride() == (1, 2)
