"""The private interfaces of PyTorch that functrain builds on: one table, and a clear word when one has moved."""

import pytest
import torch

from functrain.dispatch_state import is_traced
from functrain.engine.backends.aten import direct, memory_plan, schedule
from functrain.engine.tracing.to_graph import trace


def lookup(path):
    module, _, attribute = path.partition(":")
    value = __import__(module, fromlist=["_"])
    for name in attribute.split("."):
        value = getattr(value, name)
    return value


PRIVATE = {
    "torch.utils._pytree:tree_flatten": "tree.py, the structure of trees",
    "torch.utils._pytree:SUPPORTED_NODES": "engine/calling/tree_code.py, generated flattening",
    "torch.utils._pytree:is_namedtuple_class": "engine/calling/tree_code.py",
    "torch._C._functorch:peek_interpreter_stack": "dispatch_state.py, is a torch.func transform running",
    "torch._C._functorch:maybe_get_level": "dispatch_state.py",
    "torch._C:_len_torch_dispatch_stack": "dispatch_state.py, is anything traced",
    "torch.utils._python_dispatch:_get_current_dispatch_mode": "engine/tracing/recording.py",
    "torch.fx.experimental.proxy_tensor:get_proxy_mode": "engine/transforms/rematerializing.py, does make_fx run",
    "torch.utils._python_dispatch:TorchDispatchMode": "engine/tracing/recording.py, where all operations arrive",
    "torch:Tensor._make_wrapper_subclass": "engine/tracing/abstract_tensor.py, tensors without memory",
    "torch._C:_disabled_torch_function_impl": "engine/tracing/abstract_tensor.py",
    "torch.fx._lazy_graph_module:_LazyGraphModule": "engine/tracing/lazy_module.py, graphs without their code",
    "torch._C:_set_throw_on_mutable_data_ptr": "engine/tracing/abstract_tensor.py, numpy of a tensor without memory",
    "torch.compiler:_is_compiling_flag": "engine/tracing/compiling_flag.py",
    "torch._C:_DisableTorchDispatch": "engine/tracing/abstract_tensor.py",
    "torch._C:_dispatch_has_kernel_for_dispatch_key": "engine/tracing/recording.py, is an operation made of others",
    "torch._C:_select_conv_backend": "engine/tracing/meta/convolution_rules.py, the memory layout of a convolution",
    "torch._C:_conv_determine_backend_memory_format": "engine/tracing/meta/convolution_rules.py, the same",
    "torch._subclasses.fake_tensor:FakeTensorMode": "engine/backends/inductor/compiling.py, its examples",
    "torch._C:_dispatch_tls_is_dispatch_key_included": "dispatch_state.py, is anything traced before dispatch",
    "torch._functorch.autograd_function:custom_function_call": "engine/tracing/own_functions.py, what a mode sees",
    "torch.autograd:Variable._execution_engine.run_backward": "engine/transforms/gradients.py, the backward pass",
    "torch._C._dynamo.guards:TensorGuards": "engine/calling/tree_code.py, the check of the arguments",
    "torch._C:_AutoDispatchBelowAutograd": "engine/backends/aten/source.py, calling below autograd",
    "torch._C:_VariableFunctions": "engine/backends/aten/source.py, the quick way to call operations",
    "torch._C:TensorBase": "engine/backends/aten/source.py",
    "torch._C:_storage_Use_Count": "engine/calling/donation.py, is the memory shared",
    "torch:_fused_adam_": "optim/fused/adam.py",
    "torch:_fused_adamw_": "optim/fused/adam.py",
    "torch:_fused_sgd_": "optim/fused/sgd.py",
    "torch:_foreach_add": "optim/fused/sgd.py",
}


@pytest.mark.parametrize("path", PRIVATE)
def test_the_interface_is_where_functrain_looks_for_it(path):
    try:
        lookup(path)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{path} has moved in PyTorch {torch.__version__}; used by {PRIVATE[path]} ({error})")


def test_tensor_guards_see_form_type_and_modes():
    guards = lookup("torch._C._dynamo.guards:TensorGuards")
    check = guards(torch.ones(2, 3), dynamic_dims_sizes=[[2, 3]], dynamic_dims_strides=[[3, 1]]).check
    other = [
        torch.ones(2, 4),
        torch.ones(3, 2).t(),
        torch.ones(2, 3).double(),
        torch.ones(2, 3, requires_grad=True),
        torch.nn.Parameter(torch.ones(2, 3), requires_grad=False),
        torch.ones(2, 3, device="meta"),
        3,
    ]
    assert check(torch.zeros(2, 3)), "TensorGuards no longer accept a tensor of the same form"
    for tensor in other:
        assert not check(tensor), f"TensorGuards no longer tell apart {tensor!r}"
    with torch.autocast("cpu"):
        assert not check(torch.zeros(2, 3)), "TensorGuards no longer see autocast"
    with torch.inference_mode():
        assert not check(torch.zeros(2, 3)), "TensorGuards no longer see inference mode"


@pytest.mark.parametrize("pre_dispatch", [False, True])
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_tracing_is_seen(mode, pre_dispatch):
    seen = []
    trace_with_fx = lookup("torch.fx.experimental.proxy_tensor:make_fx")
    trace_with_fx(lambda x: seen.append(is_traced()) or x + 1, tracing_mode=mode, pre_dispatch=pre_dispatch)(
        torch.ones(2)
    )
    assert (seen, is_traced()) == ([True], False)


def test_a_tensor_can_change_its_class_and_answers_by_it():
    from functrain.engine.calling.donation import donated_class
    from functrain.errors import DonatedValueUsed

    x = torch.ones(2)
    x.__class__ = donated_class("f", "x")
    for use in (lambda: x + 1, lambda: x.shape, lambda: torch.ones(2).add_(x)):
        with pytest.raises(DonatedValueUsed):
            use()


def test_the_holders_of_a_storage_are_counted():
    from functrain.engine.calling.donation import ALONE, holders

    x = torch.ones(2)
    assert holders(x.untyped_storage()._cdata) == ALONE, "the count of a storage means something else now"
    y = x.detach()
    assert holders(x.untyped_storage()._cdata) == ALONE + 1
    del y
    assert holders(x.untyped_storage()._cdata) == ALONE


def test_the_check_of_tensors_refuses_one_tensor_passed_twice():
    from functrain.engine.calling.tree_code import tensor_check

    x, y = torch.ones(2), torch.ones(2)
    assert tensor_check([x, y])(y, x)
    assert not tensor_check([x, y])(x, x), "two arguments that are one tensor must be looked for otherwise now"


def test_data_is_a_new_tensor_on_the_same_memory():
    x = torch.ones(2)
    assert x.data is not x
    assert x.data.data_ptr() == x.data_ptr()
    assert x.data._base is None


class Recorder(torch.utils._python_dispatch.TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


CALLS = {
    "add.Tensor": (torch.ones(2), torch.ones(2)),
    "mul.Tensor": (torch.ones(2), 2.0),
    "sub.Tensor": (torch.ones(2), torch.ones(2)),
    "div.Tensor": (torch.ones(2), 2.0),
    "pow.Tensor_Scalar": (torch.ones(2), 2),
    "mm.default": (torch.ones(2, 2), torch.ones(2, 2)),
    "addmm.default": (torch.ones(2), torch.ones(2, 2), torch.ones(2, 2)),
    "bmm.default": (torch.ones(1, 2, 2), torch.ones(1, 2, 2)),
    "t.default": (torch.ones(2, 2),),
    "transpose.int": (torch.ones(2, 2), 0, 1),
    "permute.default": (torch.ones(2, 2), [1, 0]),
    "view.default": (torch.ones(2, 2), [4]),
    "expand.default": (torch.ones(2, 1), [2, 2]),
    "sum.dim_IntList": (torch.ones(2, 2), [0], True),
    "sum.default": (torch.ones(2, 2),),
    "mean.default": (torch.ones(2, 2),),
    "mean.dim": (torch.ones(2, 2), [0]),
    "gather.default": (torch.ones(2, 2), 1, torch.zeros(2, 1, dtype=torch.long)),
    "scatter.src": (torch.ones(2, 2), 1, torch.zeros(2, 1, dtype=torch.long), torch.ones(2, 1)),
    "logsumexp.default": (torch.ones(2, 2), [1], True),
    "unsqueeze.default": (torch.ones(2), 0),
    "squeeze.dim": (torch.ones(2, 1), 1),
    "select.int": (torch.ones(2, 2), 0, 1),
    "slice.Tensor": (torch.ones(4), 0, 1, 3),
    "where.self": (torch.ones(2) > 0, torch.ones(2), torch.ones(2)),
    "eq.Scalar": (torch.ones(2), 1),
    "gt.Tensor": (torch.ones(2), torch.ones(2)),
    "clamp.default": (torch.ones(2), 0.0, 1.0),
    "cat.default": ([torch.ones(2), torch.ones(2)],),
    "stack.default": ([torch.ones(2), torch.ones(2)],),
    "index_select.default": (torch.ones(2, 2), 0, torch.tensor([1])),
    "embedding.default": (torch.ones(2, 2), torch.tensor([1])),
    "threshold_backward.default": (torch.ones(2), torch.ones(2), 0),
    "_log_softmax.default": (torch.ones(2, 2), 1, False),
    "_log_softmax_backward_data.default": (torch.ones(2, 2), torch.ones(2, 2), 1, torch.float32),
    "native_layer_norm.default": (torch.ones(2, 3), [3], None, None, 1e-5),
    "split.Tensor": (torch.ones(4), 2),
    "unbind.int": (torch.ones(2, 2), 0),
    "maximum.default": (torch.ones(2), torch.ones(2)),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_quick_call_reaches_the_very_operation(name):
    packet, overload = name.split(".")
    target = getattr(getattr(torch.ops.aten, packet), overload)
    with Recorder() as recorder, torch.no_grad():
        direct.quickest(target)(*CALLS[name])
    assert recorder.seen == [target], f"calling {name} by its quick function reaches {recorder.seen}"


@pytest.mark.parametrize("target", memory_plan.IN_PLACE, ids=str)
def test_the_in_place_method_exists(target):
    assert hasattr(torch.Tensor, memory_plan.IN_PLACE[target])


@pytest.mark.parametrize("target", schedule.FOREACH, ids=str)
def test_the_grouped_operation_exists(target):
    assert hasattr(torch._C._VariableFunctions, schedule.FOREACH[target])


def test_a_trace_is_what_it_was():
    gm = trace(lambda p, x: [p - 0.1 * torch.func.grad(lambda p: (p * x).sum())(p)], [torch.ones(2)] * 2, ["p", "x"]).gm
    assert {n.target for n in gm.graph.nodes if n.op == "call_function"} >= {torch.ops.aten.mul.Tensor}
