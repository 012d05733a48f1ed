"""The tracer: what a trace says of each value is what the value has when it runs, for all that PyTorch can do."""

import subprocess
import sys
import textwrap

import pytest
import torch
from torch import Tensor

from functrain.engine import jit
from functrain.engine.backends.aten import source as aten_backend
from functrain.engine.graph.functionalizing import functionalize, writes
from functrain.engine.graph.replaying import replay
from functrain.engine.tracing.meta.geometry import bitwise_equal
from functrain.engine.tracing.to_graph import trace
from tests.engine.functions_to_trace import FUNCTIONS, form, of


class Watched(torch.fx.Interpreter):
    """Runs a graph and keeps where a value has another form than the trace says."""

    def __init__(self, gm):
        super().__init__(gm)
        self.wrong = []

    def run_node(self, node):
        result = super().run_node(node)
        said = node.meta.get("val")
        pairs = zip(said, result, strict=True) if isinstance(said, (list, tuple)) else [(said, result)]
        for value, real in pairs:
            # PyTorch is wrong about what its batch norm gives besides when it evaluates, which nobody uses.
            useless = "native_batch_norm" in f"{node.name} {node.args}" and real.numel() == 0
            if isinstance(value, Tensor) and not useless and _visible(value) != _visible(real):
                self.wrong.append(f"{node.target}: said {form(value)}, is {form(real)}")
        return result


def _visible(value):
    # The stride of an axis of length one says nothing, and none does where there is no element.
    strides = [s for s, n in zip(value.stride(), value.shape, strict=True) if n > 1 and value.numel()]
    return tuple(value.shape), strides, value.dtype, str(value.device)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_trace_is_right_about_each_value(name):
    f, *given = FUNCTIONS[name]
    before = [x.clone() for x in given]
    recorded = trace(f, given).gm
    gm = functionalize(recorded)
    assert not any(map(writes, gm.graph.nodes))
    expected = [x.detach() for x in f(*given)]
    assert all(map(bitwise_equal, replay(recorded)(given), expected))
    watched = Watched(gm)
    results = watched.run(*given)
    assert watched.wrong == []
    torch.testing.assert_close(list(results), expected, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))


def test_an_operation_whose_form_only_its_kernel_knows_is_run_on_zeros():
    with torch.library._scoped_library("functrain_test", "DEF") as library:
        library.define("every_second(Tensor x) -> Tensor")
        library.impl("every_second", lambda x: x[::2].clone(), "CPU")
        gm = trace(lambda x: [torch.ops.functrain_test.every_second(x) + 1], [torch.arange(5.0)]).gm
        assert gm(torch.arange(5.0))[0].tolist() == [1, 3, 5]


def test_the_cache_of_autocast_is_left_alone():
    x = of(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        f = jit(lambda x: x @ MATRIX)
        assert torch.equal(f(x), x @ MATRIX)
        assert torch.equal(f(x), (x.bfloat16() @ MATRIX.bfloat16()))


MATRIX = torch.nn.Parameter(of(2, 2))


def test_an_assertion_stays():
    gm = trace(lambda x: [torch._assert_async(x.sum() > 0) or x * 2], [of(2)]).gm
    run = aten_backend.compile(gm, [])
    assert torch.equal(run([torch.ones(2)])[0], 2 * torch.ones(2))
    with pytest.raises(RuntimeError):
        run([-torch.ones(2)])


@pytest.mark.parametrize("optimizer", ["sgd(0.1, momentum=0.9)", "adamw(schedule.cosine(0.1, 0.01))"])
def test_a_first_step_imports_no_compiler(optimizer):
    """What costs a second at the first call in a process."""
    program = """
        import sys, functrain as ft
        from functrain import data, losses, metrics, nn, optim, schedule
        model = nn.serial(nn.conv(4, 3, padding=1), nn.batch_norm(), nn.relu, nn.dropout(0.1), nn.flatten, nn.dense(3))
        learner = ft.Learner(model, losses.cross_entropy, optim.OPTIMIZER, {"accuracy": metrics.accuracy})
        import torch
        rows = data.ArrayDataset((torch.randn(20, 1, 6, 6), torch.arange(20) % 3))
        state = ft.init(learner, ft.random.key(0), rows[:2])
        ft.fit(learner, state, train=data.loader(rows, data.shuffled(4)), epochs=1)
        heavy = {"torch._dynamo", "torch._inductor", "sympy", "torch.fx.experimental.symbolic_shapes"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """
    program = textwrap.dedent(program).replace("OPTIMIZER", optimizer)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
