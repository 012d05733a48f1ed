"""Whatever a tensor closed over, or its storage, tells Python is what it says at the call, or is refused in words.

All methods and attributes are asked, found by `dir`; then the tensor is changed, and eager says what is right.
"""

import copy
import ctypes
import io
import operator
import pickle
import random
import warnings
import zlib
from collections import deque

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._C import _to_dlpack

import functrain as ft
from functrain.errors import FunctrainError, NotTraceable, SideEffect

X = torch.tensor([0.3, 0.7], dtype=torch.float64)
ARGUMENTS = [
    (),
    (0,),
    (2,),
    (0.5,),
    (0, 0),
    (0, 1),
    (torch.tensor([2.0, 3.0]),),
    ({},),
    (np.float32,),
    ("cpu",),
    ([1, 3],),
]
UNSAFE = {
    # Of the object, not of what it holds; or breaks what it is called of.
    *("__class__", "__init__", "__new__", "__init_subclass__", "__subclasshook__", "__setattr__", "__delattr__"),
    *(
        "__dict__",
        "__weakref__",
        "__doc__",
        "__del__",
        "__setstate__",
        "__class_getitem__",
        "__torch_function__",
        "__delitem__",
    ),
    *("__torch_dispatch__", "_make_subclass", "_make_wrapper_subclass", "_make_dtensor", "_use_count", "_fix_weakref"),
    *(
        "_view_func_unsafe",
        "_view_func",
        "_rev_view_func_unsafe",
        "_cdata",
        "__hash__",
        "__sizeof__",
        "_dispatch_dtype",
    ),
    *("_clear_non_serializable_cached_data", "_free_weak_ref", "_weak_ref", "_set_cdata", "_new_with_weak_ptr"),
    *("_shared_decref", "_shared_incref", "_release_ipc_counter", "_release_ipc_counter_cuda", "_expired", "__dir__"),
    *("_new_shared", "_new_shared_cuda", "_new_shared_fd_cpu", "_new_shared_filename_cpu", "_get_shared_fd"),
    *(
        "_share_fd_cpu_",
        "_share_filename_cpu_",
        "from_buffer",
        "from_file",
        "_new_with_file",
        "_set_from_file",
        "_write_file",
        "index",
        "untyped",
    ),
    *("_new_using_fd_cpu", "_new_using_filename_cpu", "pickle_storage_type", "__getattribute__", "__format__"),
    *(
        "map_",
        "apply_",
        "map2_",
        "_python_dispatch",
        "module_load",
        "rename",
        "hpu",
        "mps",
        "cuda",
        "xpu",
        "ipu",
        "mtia",
    ),
    *("pin_memory", "_sync_xla", "filename", "_get_filename"),
    *("register_hook", "register_post_accumulate_grad_hook", "retain_grad", "backward"),
    # Other numbers each time.
    *("bernoulli", "multinomial", "new_empty", "new", "empty_like", "new_empty_strided", "resize", "resize_as"),
    *("resize_as_sparse", "rrelu", "to_mkldnn"),
}


def number_of(value):
    """Return what an answer says, as a number or a tensor that a graph can hold."""
    if isinstance(value, Tensor):
        return number_of_tensor(value) if value.layout is torch.strided and not value.is_quantized else 1.0
    if isinstance(value, (bool, int, float)):
        return float(value) % 1e6
    if isinstance(value, (str, bytes, bytearray)):
        return float(zlib.crc32(value.encode() if isinstance(value, str) else value) % 1000)
    if isinstance(value, np.ndarray):
        return number_of(value.tolist())
    if torch.is_storage(value):
        return number_of(list(value))
    if isinstance(value, (list, tuple)) or hasattr(value, "__next__"):
        return sum((k + 1) * number_of(one) for k, one in enumerate(value))
    if type(value).__name__ == "PyCapsule":
        return number_of(torch.from_dlpack(value))
    return number_of(
        str(value) if value is None or isinstance(value, (torch.dtype, torch.device)) else type(value).__name__
    )


def number_of_tensor(value):
    value = torch.view_as_real(value.resolve_conj()) if value.is_complex() else value
    return (value.detach().double().reshape(-1).nan_to_num() * torch.arange(1.0, value.numel() + 1).double()).sum()


def vector():
    return torch.tensor([2.0, 3.0])


def integer():
    return torch.tensor(3)


def parameter():
    return torch.nn.Parameter(vector())


def in_place(t):
    with torch.no_grad():
        t.mul_(2).add_(1)


def other_data(t):
    t.data = torch.arange(8).to(t.dtype)[1:7].view(3, 2).t() if t.dim() else torch.tensor([7, 9]).to(t.dtype)[1]


def gradients(t):
    if t.is_floating_point():
        t.requires_grad_(not t.requires_grad)
        t.grad = torch.full(t.shape, 4.0)


def nothing(t):
    pass


CHANGES = [in_place, other_data, gradients]


def asked(get, name, arguments):
    def ask(t, told=number_of):
        attribute = getattr(get(t), name)
        return told(attribute(*arguments) if callable(attribute) else attribute)

    return ask


def tells_python(ask, t):
    """Return whether an answer has other things than tensors, which operations of the graph have computed."""
    try:
        answer = ask(t, lambda answer: answer)
    except Exception:
        return False
    parts = answer if isinstance(answer, (tuple, list)) else (answer,)
    return answer is not NotImplemented and not (len(parts) and all(isinstance(one, Tensor) for one in parts))


def answer_or_error(ask, t):
    try:
        return X * ask(t)
    except FunctrainError:
        raise
    except Exception as error:
        return type(error)


def ways(get, make, names):
    for name in names:
        if name in UNSAFE or (name.endswith("_") and not name.endswith("__")) or name.startswith("__i"):
            continue
        for arguments in ARGUMENTS:
            ask, t = asked(get, name, arguments), make()
            is_steady = same(answer_or_error(ask, t), answer_or_error(ask, t))
            if tells_python(ask, t) and is_steady:
                yield f"{name}{arguments}", ask
            if not callable(getattr(type(get(t)), name, len)):  # an attribute
                break


def same(a, b):
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return a is b
    return torch.allclose(a, b, equal_nan=True)


def wrong_after(changes, make, ask):
    """Return what is silently wrong: (compiled, eager) where they differ and the compiled function says nothing."""
    t = make()
    compiled = ft.jit(lambda x: x * ask(t))
    found = []
    for alter in (nothing, *changes, nothing):
        alter(t)
        expected = answer_or_error(ask, t)
        try:
            got = compiled(X)
        except FunctrainError:
            continue
        except Exception as error:
            got = type(error)
        if isinstance(got, Tensor) and not same(got, expected):
            found.append((got, expected))
    return found


SOURCES = {
    "a tensor": (lambda t: t, dir(Tensor)),
    "a storage": (lambda t: t.untyped_storage(), dir(torch.UntypedStorage)),
    "a typed storage": (lambda t: t.storage(), dir(torch.TypedStorage)),
}


@pytest.mark.parametrize("make", [vector, integer, parameter])
@pytest.mark.parametrize("source", SOURCES)
def test_all_that_can_be_asked_is_what_it_is_at_the_call(source, make):
    get, names = SOURCES[source]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        found = {way: bad for way, ask in ways(get, make, names) if (bad := wrong_after(CHANGES, make, ask))}
    assert not found


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


ELSEWHERE = {
    "pickle": lambda t: pickle.dumps(t),
    "pickle in a dict": lambda t: pickle.dumps({"w": t}),
    "pickle of a storage": lambda t: pickle.dumps(t.untyped_storage()),
    "torch.save": saved,
    "torch.save of a dict": lambda t: saved({"w": t}),
    "copy": lambda t: copy.copy(t),
    "deepcopy": lambda t: copy.deepcopy(t),
    "copy of a storage": lambda t: copy.copy(t.untyped_storage()),
    "bytes of a storage": lambda t: bytes(t.untyped_storage()),
    "its memory": lambda t: ctypes.c_float.from_address(t.untyped_storage().data_ptr()).value,
    "its typed memory": lambda t: ctypes.c_float.from_address(t.storage().data_ptr()).value,
    "another storage": lambda t: torch.UntypedStorage(8).copy_(t.untyped_storage()),
    "a list": lambda t: torch.tensor([t.view(-1)[0], 2]),
    "a nested list": lambda t: torch.as_tensor([[t.view(-1)[0], 2], (1, t.view(-1)[0])]),
    "a deque": lambda t: torch.asarray(deque([t.view(-1)[0], 2])),
    "data=": lambda t: torch.tensor(data=[t.sum()]),
    "new_tensor": lambda t: t.new_tensor([t.sum(), 2]),
    "new": lambda t: t.new([t.sum(), 2]),
    "a list under grad": lambda t: torch.func.grad(lambda v: v * torch.tensor([t.sum()])[0])(torch.tensor(1.0)),
    "memoryview": lambda t: memoryview(t.detach().numpy()).tobytes(),
    "hash": lambda t: hash(t.detach().numpy().tobytes()) % 1000,
    "to_dlpack": lambda t: _to_dlpack(t.detach()),
    "equal": lambda t: torch.equal(t, vector()),
    "allclose": lambda t: t.is_floating_point() and torch.allclose(t.view(-1)[:1], vector()[:1]),
    "in": lambda t: 5.0 in t,
    "%": lambda t: f"{t} " + "%s" % t,  # noqa: UP031
    "seed": lambda t: random.Random(int(t.sum())).random(),
    "range": lambda t: range(int(t.sum())),
    "index": lambda t: operator.index(t.sum().long()),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("make", [vector, parameter])
@pytest.mark.parametrize("way", ELSEWHERE)
def test_all_that_others_ask_is_what_it_is_at_the_call(way, make, change):
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        assert not wrong_after([change], make, lambda t: number_of(ELSEWHERE[way](t)))


@pytest.mark.parametrize("index", [lambda n: ([n, 0],), lambda n: (slice(None), [n, 1]), lambda n: ([0, 1], [n, 2])])
def test_a_list_with_a_tensor_is_an_index_with_the_number_of_the_call(index):
    n, x = torch.tensor(2), torch.arange(49.0).view(7, 7)

    def written(x):
        y = x.clone()
        y[index(n)] = -1
        return y

    for f in (lambda x: x[index(n)], written):
        compiled = ft.jit(f)
        for value in (2, 5, 2):
            n.fill_(value)
            assert torch.equal(compiled(x), f(x))


def test_a_list_with_a_tensor_that_has_other_values_for_each_row_is_refused():
    with pytest.raises(NotTraceable, match=r"Python looks at the values of a tensor at test_all_ways"):
        ft.jit(ft.vmap(lambda v: torch.tensor([v, 2.0])))(vector())
    with pytest.raises(NotTraceable, match=r"Python looks at the values of a tensor at test_all_ways"):
        ft.jit(lambda v: torch.tensor([v[0], 2.0]))(vector())


def test_what_is_taken_apart_or_written_through_its_storage_is_refused_where_the_user_says_so():
    t, x = vector(), vector()
    for take in (lambda: copy.copy(t), lambda: pickle.dumps(t)):
        with pytest.raises(NotTraceable, match=r"a tensor is taken apart at test_all_ways_to_ask.py:\d+.*clone\(\)"):
            ft.jit(lambda x, take=take: (take(), x)[1])(x)
    for write in (lambda s: s.fill_(0), lambda s: s.__setitem__(0, 1), lambda s: s.resize_(16)):
        with pytest.raises(SideEffect, match="the storage of a tensor is changed in place at test_all_ways"):
            ft.jit(lambda x, write=write: (write(t.untyped_storage()), x)[1])(x)
    assert t.tolist() == [2.0, 3.0] and pickle.loads(pickle.dumps(t)).tolist() == [2.0, 3.0]


def test_what_is_asked_of_a_tensor_closed_over_is_asked_again_at_each_call():
    t = torch.ones(2)
    f = ft.jit(lambda x: x * t.shape[0] + (0 if t.grad is None else t.grad))
    assert f(X).tolist() == (X * 2).tolist() and f(X).tolist() == (X * 2).tolist() and len(f.traces) == 1
    t.grad = torch.ones(2)
    assert f(X).tolist() == (X * 2 + 1).tolist()
    t.grad = torch.full((2,), 2.0)
    assert f(X).tolist() == (X * 2 + 2).tolist() and f(X).tolist() == (X * 2 + 2).tolist() and len(f.traces) == 3
    assert ft.jit(ft.vmap(lambda v: v * t.shape[0]))(X).tolist() == (X * 2).tolist()


def test_a_step_of_a_scan_asks_again_too():
    t = torch.ones(2)
    f = ft.jit(lambda x: ft.scan(lambda c, _: (c * t.shape[0] + torch.tensor([t[0]]), c), x, torch.arange(2.0))[0])
    for data in (torch.ones(2), torch.ones(3), torch.full((3,), 2.0)):
        t.data = data
        expected = X
        for _ in range(2):
            expected = expected * len(data) + data[0]
        assert torch.allclose(f(X), expected)
