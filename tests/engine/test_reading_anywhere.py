"""Values of what is closed over, read wherever a user's code can stand: they join the signature, or are refused."""

import copy

import numpy as np
import pytest
import torch
from torch.autograd import Function
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import functrain as ft
from functrain.errors import NotTraceable, SideEffect

CLOSED = torch.tensor([2.0, 3.0])
X = torch.tensor([0.3, 0.7])
ONE = lambda: 1.0  # noqa: E731


@pytest.fixture(autouse=True)
def restored():
    CLOSED.copy_(torch.tensor([2.0, 3.0]))
    yield
    CLOSED.grad = None


def function_that_reads(where, read):
    at = {name: read if name == where else ONE for name in ("forward", "setup_context", "backward", "jvp", "vmap")}

    class Scaled(Function):
        @staticmethod
        def forward(x):
            return x * at["forward"]()

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.factor = at["setup_context"]()

        @staticmethod
        def backward(ctx, cotangent):  # pyright: ignore[reportIncompatibleMethodOverride]
            return cotangent * ctx.factor * at["backward"]()

        @staticmethod
        def jvp(ctx, tangent):  # pyright: ignore[reportIncompatibleMethodOverride]
            return tangent * ctx.factor * at["jvp"]()

        @staticmethod
        def vmap(info, dims, x):  # pyright: ignore[reportIncompatibleMethodOverride]
            return Scaled.apply(x) * at["vmap"](), dims[0]  # pyright: ignore[reportOperatorIssue]

    return lambda *args: Scaled.apply(*args)


def hooked(register):
    def place(read):
        def f(x):
            y = x * 1
            z = y * 2
            register(y, z, read)
            return z

        return f

    return place


def of_node(y, z, read):
    z.grad_fn.register_hook(lambda inputs, _: tuple(g if g is None else g * read() for g in inputs))


def kept(pack, unpack):
    def place(read):
        def f(x):
            with torch.autograd.graph.saved_tensors_hooks(pack(read), unpack(read)):
                return x.sin()

        return f

    return place


class Wrapped:
    """No tensor, but what PyTorch's functions take: it answers for itself."""

    def __init__(self, x, read):
        self.x, self.read = x, read

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        factor = next(a.read for a in args if isinstance(a, cls))()
        return func(*(a.x if isinstance(a, cls) else a for a in args), **(kwargs or {})) * factor


def in_a_mode(kind, method, name):
    def place(read):
        def answer(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            return out * read() if getattr(func, "__name__", "") in name else out

        def f(x):
            with type("Mode", (kind,), {method: answer})():
                return x * 2

        return f

    return place


@torch.library.custom_op("functrain_tests::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


twice.register_fake(torch.empty_like)
FACTORS = {"setup": ONE, "backward": ONE}
twice.register_autograd(
    lambda ctx, cotangent: cotangent * 2 * ctx.factor * FACTORS["backward"](),
    setup_context=lambda ctx, inputs, output: setattr(ctx, "factor", FACTORS["setup"]()),
)


def of_an_operator(where):
    def place(read):
        def f(x):
            FACTORS.update({"setup": ONE, "backward": ONE, where: read})
            return twice(x)

        return f

    return place


def gradient_in_a_step(read):
    def step(carry, _):
        y = carry.detach().requires_grad_()
        with torch.enable_grad():
            return carry + torch.autograd.grad(PLACES["a hook"](read)(y).sum(), y)[0], carry

    return lambda x: ft.scan(step, x, torch.arange(2.0))[0]


def by_backward(backward):
    def derive(f):
        def gradient(x):
            y = x.detach().requires_grad_()
            with torch.enable_grad():
                backward(f(y).square().sum())
            return y.grad

        return gradient

    return derive


def by_grad(f):
    def gradient(x):
        y = x.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(f(y).square().sum(), y)[0]

    return gradient


PLACES = {
    **{
        name: lambda read, name=name: function_that_reads(name, read)
        for name in ("forward", "setup_context", "backward")
    },
    "a hook": hooked(lambda y, z, read: y.register_hook(lambda g: g * read())),
    "a hook of a node": hooked(of_node),
    "a hook before a node": hooked(
        lambda y, z, read: z.grad_fn.register_prehook(lambda out: tuple(g * read() for g in out))
    ),
    "unpacking": kept(lambda read: lambda t: t, lambda read: lambda t: t * read()),
    "packing": kept(lambda read: lambda t: (t, read()), lambda read: lambda pair: pair[0] * pair[1]),
    "a class": lambda read: lambda x: torch.mul(Wrapped(x, read), 1.5),  # pyright: ignore[reportArgumentType]
    "a mode of functions": in_a_mode(TorchFunctionMode, "__torch_function__", ("mul", "__mul__")),
    "a dispatch mode": in_a_mode(TorchDispatchMode, "__torch_dispatch__", ("mul.Tensor",)),
    "a checkpoint": lambda read: lambda x: checkpoint(lambda x: x.sin() * read(), x, use_reentrant=False),
    "setup of an operator": of_an_operator("setup"),
    "backward of an operator": of_an_operator("backward"),
    "custom_gradient": lambda read: ft.custom_gradient(lambda x: (x * 1, lambda cotangent: cotangent * read())),
    "remat": lambda read: ft.remat(lambda x: x.sin() * read()),
    "backward in remat": lambda read: ft.remat(function_that_reads("backward", read)),
    "a step": lambda read: lambda x: ft.scan(lambda c, _: (c * read(), c), x, torch.arange(2.0))[0],
    "backward in a step": lambda read: (
        lambda x: ft.scan(lambda c, _: (function_that_reads("backward", read)(c) * 2, c), x, torch.arange(2.0))[0]
    ),
    "a gradient in a step": gradient_in_a_step,
    "a branch": lambda read: (
        lambda x: ft.cond(x.sum() > -9, lambda x: function_that_reads("backward", read)(x), lambda x: x, x)
    ),
    "a distance": lambda read: (
        lambda x: torch.nn.functional.triplet_margin_with_distance_loss(
            x[None], x[None] * 3, x[None] * 2, distance_function=lambda a, b: ((a - b) * read()).abs().sum(-1)
        )
    ),
}
DERIVATIVES = {
    "autograd.grad": by_grad,
    "Tensor.backward": by_backward(lambda total: total.backward()),
    "autograd.backward": by_backward(torch.autograd.backward),
    "ft.grad": lambda f: ft.grad(lambda x: f(x).square().sum()),
    "func.grad": lambda f: torch.func.grad(lambda x: f(x).square().sum()),
}
BESIDES_FUNC = ("packing", "unpacking", "a checkpoint", "setup of", "backward of", "a gradient in")
"""Where PyTorch itself does not go with torch.func."""


def changed_between_calls(f):
    compiled = ft.jit(f)
    for value in (2.0, 5.0, 2.0):
        CLOSED[0] = value
        yield compiled(X), f(X)


BOTH = [
    *((place, "autograd.grad") for place in PLACES),
    *((place, "func.grad") for place in PLACES if not place.startswith(BESIDES_FUNC)),
    *(
        (place, derivative)
        for place in ("backward", "a hook of a node", "packing")
        for derivative in list(DERIVATIVES)[1:4]
    ),
]


@pytest.mark.parametrize(("place", "derivative"), BOTH)
def test_a_value_read_anywhere_is_that_of_the_call(place, derivative):
    f = DERIVATIVES[derivative](PLACES[place](lambda: CLOSED.tolist()[0]))
    seen = list(changed_between_calls(f))
    for compiled, eager in seen:
        torch.testing.assert_close(compiled, eager)
    assert not torch.equal(seen[0][1], seen[1][1])  # the value does matter there


@pytest.mark.parametrize("where", ["jvp", "vmap"])
def test_so_it_is_in_the_other_rules_of_a_function(where):
    f = function_that_reads(where, lambda: CLOSED.tolist()[0])
    uses = {"jvp": lambda x: ft.jvp(f, (x,), (x,))[1], "vmap": lambda x: ft.vmap(f)(x)}
    for compiled, eager in changed_between_calls(uses[where]):
        assert torch.equal(compiled, eager)


READS = {
    "numpy": lambda: CLOSED.numpy()[0],
    "asarray": lambda: np.asarray(CLOSED)[0],
    "item": lambda: CLOSED[0].item(),
    "bool": lambda: 7.0 if CLOSED[0] > 4 else 1.0,
    "text": lambda: float(str(CLOSED).split("[")[1].split(",")[0]),
    "a format": lambda: float(f"{CLOSED}".split("[")[1].split(",")[0]),
    "a list of elements": lambda: next(float(c) for c in CLOSED),
    "a copy": lambda: copy.deepcopy(CLOSED).tolist()[0],
    "from_numpy": lambda: torch.from_numpy(CLOSED.numpy())[0],
    "contains": lambda: 5.0 if 5.0 in CLOSED else 2.0,
}
MEMORY = {
    "dlpack": lambda: np.from_dlpack(CLOSED)[0],
    "an address": lambda: CLOSED.data_ptr(),
    "a storage": lambda: CLOSED.untyped_storage().tolist(),
    "apply_": lambda: CLOSED.apply_(lambda v: v + 1),
    "map_": lambda: CLOSED.map_(CLOSED, lambda a, b: a + b),
}


@pytest.mark.parametrize("read", READS)
def test_every_way_to_read_a_value(read):
    f = by_grad(function_that_reads("backward", lambda: float(READS[read]())))
    for compiled, eager in changed_between_calls(f):
        assert torch.equal(compiled, eager)


@pytest.mark.parametrize("read", MEMORY)
@pytest.mark.parametrize("place", ["forward", "backward"])
def test_the_memory_itself_is_refused(read, place):
    before = CLOSED.clone()
    with pytest.raises(NotTraceable, match=r"Python looks at the values|is given other memory|runs Python for each"):
        ft.jit(by_grad(function_that_reads(place, lambda: (MEMORY[read](), 1.0)[1])))(X)
    assert torch.equal(CLOSED, before)


CHANGES = {
    "add_": lambda: CLOSED.add_(1),
    "x[0] = v": lambda: CLOSED.__setitem__(0, 9.0),
    "the data": lambda: setattr(CLOSED, "data", torch.ones(2)),
    "what data gives": lambda: CLOSED.data.add_(1),
    "the grad": lambda: setattr(CLOSED, "grad", torch.ones(2)),
    "requires_grad": lambda: setattr(CLOSED, "requires_grad", True),
    "requires_grad_": lambda: CLOSED.requires_grad_(),
    "its array": lambda: CLOSED.numpy().fill(7),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("place", ["backward", "a class"])
def test_a_change_of_what_is_closed_over_is_refused_anywhere(change, place):
    before = CLOSED.clone()
    with pytest.raises(SideEffect, match=r"closed over is changed in place|the array that numpy"):
        ft.jit(by_grad(PLACES[place](lambda: (CHANGES[change](), 1.0)[1])))(X)
    assert torch.equal(CLOSED, before) and CLOSED.grad is None and not CLOSED.requires_grad


def test_an_array_and_its_tensor_are_not_written_to_apart_in_a_trace():
    def array_first(x):
        t = torch.zeros(2)
        t.numpy()[0] = 1
        return x + t

    def tensor_first(x):
        t = torch.zeros(2)
        array = t.numpy()
        t[0] = 1
        return x + torch.tensor(array)

    def copies(x):
        t = torch.zeros(2)
        array, doubles = t.numpy().copy(), t.numpy().astype(np.float64)
        array[0], doubles[0] = 1, 2
        return x + torch.tensor(array) + torch.tensor(doubles, dtype=torch.float32)

    for f in (array_first, tensor_first):
        with pytest.raises(SideEffect, match=r"the array that numpy\(\) gives|that numpy\(\) was called of is changed"):
            ft.jit(f)(X)
    assert torch.equal(ft.jit(copies)(X), copies(X))


def test_rows_by_number_in_a_backward_pass_are_those_of_a_trace():
    class Row(Function):
        @staticmethod
        def forward(ctx, x, k):
            ctx.k = k
            return x * 1

        @staticmethod
        def backward(ctx, cotangent):  # pyright: ignore[reportIncompatibleMethodOverride]
            return cotangent * cotangent[ctx.k] + torch.nn.functional.one_hot(ctx.k, 2), None

    def f(x, k):
        y = x.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad((Row.apply(y, k) ** 2).sum(), y)[0]  # pyright: ignore[reportOptionalOperand]

    for k in (0, 1):
        assert torch.equal(ft.jit(f)(X, torch.tensor(k)), f(X, torch.tensor(k)))
