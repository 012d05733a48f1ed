"""The backend that compiles a graph to machine code with PyTorch's Inductor, and keeps the result on disk.

Each compilation says so in one line on stderr; `logging.getLogger("functrain.compile").setLevel("WARNING")` silences
it.
"""

import logging
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from functrain.dispatch_contexts import below_autocast, below_autograd
from functrain.engine.backends.inductor import artifact
from functrain.engine.backends.inductor.channels import channels_as_they_are
from functrain.engine.backends.inductor.layouts import Layouts
from functrain.engine.backends.inductor.origins import kernels, tell_origins
from functrain.engine.backends.inductor.stages import in_stages, is_apart
from functrain.engine.backends.inductor.workarounds import respell
from functrain.engine.graph.passes.expanding import expand
from functrain.engine.graph.queries import copy, output_of, placeholders
from functrain.engine.graph.scan_node import Body, Pairs, lift_constants, unalias
from functrain.engine.tracing.abstract_tensor import clone_of
from functrain.engine.tracing.lazy_module import graph_module
from functrain.errors import CompileFailed, CompilerMissing

_log = logging.getLogger("functrain.compile")
_log.setLevel(logging.INFO)  # seconds of waiting want an explanation, even where the root logger shows warnings alone


def compile(gm: GraphModule, example_inputs: list[Tensor], donated: Pairs = ()) -> Body:
    """Return the function of a graph, compiled by Inductor or loaded from the disk.

    A scan in the graph has its body compiled, and what stands before and after it, see `stages`.

    Args:
        gm: a graph that takes tensors and returns a list of tensors. Operations that write are allowed on its own
            intermediates only.
        example_inputs: tensors with the shapes, strides, dtypes and devices of the inputs, without memory.
        donated: pairs (input, output): the output is written into the input, inside the compiled code, and returned.

    Returns:
        A function from a list of tensors to a list of tensors.

    Raises:
        CompilerMissing: there is no C++ compiler, and no stored result of it.
        CompileFailed: the C++ compiler failed.
    """
    if any(map(is_apart, gm.graph.nodes)):
        return in_stages(gm, example_inputs, donated, compile)
    work = _Work(gm, list(example_inputs), donated)
    if not any(node.op == "call_function" for node in work.gm.graph.nodes):
        return work.bind(lambda inputs: work.gm(*inputs))
    key = artifact.key(work.gm, work.examples)
    call = artifact.load(key)
    return work.bind(_compile(work, key, _name(gm)) if call is None else call)


def _name(gm: GraphModule) -> str:
    return gm.meta.get("name") or gm._get_name()


class _Work:
    """A graph made ready for Inductor, and how its results make up the list that the caller wants.

    The graph gets its constants as inputs, writes donated outputs into inputs itself, and returns the others alone,
    each once and none sharing memory, so that Inductor's own function can be called without PyTorch's layers around it.
    """

    def __init__(self, gm: GraphModule, examples: list[Tensor], donated: Pairs):
        gm = expand(gm)
        gm = graph_module(gm, copy(gm.graph))
        self.constants = lift_constants(gm)
        self.count = len(examples)
        unalias(gm, donated)
        respell(gm.graph)
        self.places = _rewrite_outputs(gm, self.count, donated)
        gm.graph.eliminate_dead_code()
        gm.recompile()
        self.gm = gm
        self.examples = examples + [_example(node) for node in placeholders(gm.graph)[self.count :]]

    def bind(self, call: Callable[[list], Any]) -> Body:
        """Return the function from the caller's inputs to the caller's outputs."""
        items = ", ".join(f"{'inputs' if kind == 'in' else 'out'}[{i}]" for kind, i in self.places)
        arguments = "[*inputs, *constants]" if self.constants else "[*inputs]"
        tell_origins(call, self.gm.graph)
        # Below autograd, because kernels write into tensors that they are given.
        source = _STEP.format(arguments=arguments, items=items)
        scope = {"call": call, "constants": self.constants, "mispredicted": _explain_misprediction}
        scope["layouts"] = Layouts([node.meta["val"] for node in output_of(self.gm.graph).args[0]])
        scope |= {"below": below_autograd, "below_autocast": below_autocast}
        exec(source, scope)
        scope["step"].kernels = kernels(call)
        return scope["step"]


_STEP = """
def step(inputs):
    try:
        with below(), below_autocast():
            out = call({arguments})
    except AssertionError as error:
        raise mispredicted(error) from error
    if layouts:
        out = layouts.apply(out)
    return [{items}]
"""


def _explain_misprediction(error: AssertionError) -> CompileFailed:
    return CompileFailed(
        f"what inductor compiled found another layout than it was compiled for:\n  {str(error).splitlines()[0]}\n"
        "its rule for an operation is wrong; backend='aten' runs the same graph"
    )


def _example(node: Any) -> Tensor:
    return node.meta["val"]


def _rewrite_outputs(gm: GraphModule, count: int, donated: Pairs) -> list[tuple[str, int]]:
    """Let a graph write its donated outputs into inputs and return the rest; return where each output is then found."""
    output = output_of(gm.graph)
    inputs = placeholders(gm.graph)
    nodes, into = list(output.args[0]), {o: i for i, o in donated}
    places, kept = [], []
    for o, node in enumerate(nodes):
        if node in inputs:
            places.append(("in", inputs.index(node)))
        elif o in into:
            places.append(("in", into[o]))
            with gm.graph.inserting_before(output):
                value = _pin(gm.graph, node) if len(_sources(node)) <= 1 else node
                gm.graph.call_function(torch.ops.aten.copy_.default, (inputs[into[o]], value))
        else:
            places.append(("out", len(kept)))
            kept.append(node)
    output.args = (kept,)
    return places


def _sources(node: Node) -> set[Node]:
    """Return the placeholders that a node is computed from."""
    positions, seen, todo = set(), {node}, [node]
    while todo:
        at = todo.pop()
        if at.op == "placeholder":
            positions.add(at)
        todo += [n for n in at.all_input_nodes if n not in seen]
        seen.update(todo)
    return positions


def _pin(graph: Graph, node: Node) -> Node:
    """Return a node of the same bits that Inductor does not take for the input itself.

    It removes copies, sums with zero and the like even where the input is overwritten before the copy is read (seen in
    PyTorch 2.13: a swap of two donated buffers gave the same value twice). It does not see through this, and fuses it.
    """
    differs = graph.call_function(torch.ops.aten.ne.Tensor, (node, node))
    same = graph.call_function(torch.ops.aten.where.self, (differs, node, node))
    same.meta["val"] = clone_of(node.meta["val"])
    return same


def _compile(work: _Work, key: str, name: str) -> Callable[[list], Any]:
    began = time.perf_counter()
    operations = sum(node.op == "call_function" for node in work.gm.graph.nodes)
    if any(t.device.type == "cpu" for t in work.examples) or not work.examples:
        check_compiler()
    _say(f"functrain: compiling {name} with inductor, {operations} operations ... ")
    try:
        call, inner = _by_inductor(work)
        why = _save(key, inner)
    except BaseException:
        _say("failed\n")
        raise
    _say(f"{time.perf_counter() - began:.1f} s{why}\n")
    return artifact.load(key) or call  # what is kept on disk has been made quicker to call


def _say(text: str) -> None:
    if _log.isEnabledFor(logging.INFO):
        sys.stderr.write(text)
        sys.stderr.flush()


def _save(key: str, inner: Any) -> str:
    try:
        if inner is None:
            raise artifact.Unusable("Inductor changed its signature")
        artifact.save(key, inner)
        return ""
    except (artifact.Unusable, OSError) as error:
        return f" (not kept on disk: {error})"


def _by_inductor(work: _Work) -> tuple[Callable[[list], Any], Any]:
    """Return the compiled function, and Inductor's record of it, or None where that is not the function itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's about itself; nobody here can heed them
        return _by_inductor_warning(work)


def _by_inductor_warning(work: _Work) -> tuple[Callable[[list], Any], Any]:
    from torch._functorch import config as functorch_config
    from torch._inductor import standalone_compile
    from torch._inductor.compile_fx import compile_fx_inner

    made = []

    def keep(graph: GraphModule, inputs: Any, **options: Any) -> Any:
        compiled = compile_fx_inner(graph, inputs, **options)
        made.append((graph, compiled))
        return compiled

    wanted = (len(work.examples), sum(kind == "out" for kind, _ in work.places))
    # PyTorch's cache above Inductor's would skip the function in which we take hold of the result.
    cache_off, channels = functorch_config.patch(enable_autograd_cache=False), channels_as_they_are(work.gm.graph)
    with torch.no_grad(), cache_off, channels, _failures():
        whole = standalone_compile(
            _without_metadata(work.gm),
            _fakes(work.examples),  # pyright: ignore
            dynamic_shapes="from_example_inputs",
            options={"inner_compile": keep},
        )
    if len(made) == 1 and _signature(made[0][0]) == wanted:
        return made[0][1].current_callable, made[0][1]
    return lambda inputs: whole(*inputs), None


def _without_metadata(gm: GraphModule) -> GraphModule:
    graph = copy(gm.graph)
    for node in graph.nodes:
        node.meta = {}
    return graph_module(gm, graph)


def _fakes(examples: list[Tensor]) -> list[Tensor]:
    """Return tensors without memory as Inductor knows them."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        return [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device) for t in examples]


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise CompileFailed(
            f"compiling with inductor failed:\n{_essence(error)}\nbackend='aten' runs the same graph without compiling"
        ) from error


def _essence(error: BaseException) -> str:
    """Return the lines of a failed compilation that say why, at most ten."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    output = next((o for e in chain if isinstance(o := getattr(e, "output", None), str)), None)
    if output is None:
        return f"  {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower()] or lines
    return "\n".join(f"  {line}" for line in telling[:10]) or "  the compiler said nothing"


def check_compiler() -> None:
    """Raise `CompilerMissing` unless there is a C++ compiler that answers."""
    tried = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    problem = _problem(tried)
    if problem:
        raise CompilerMissing(
            f"backend='inductor' needs a C++ compiler, but {problem}; install g++, or set the environment variable CXX "
            "to one, or use backend='aten', which compiles nothing"
        )


@cache
def _problem(compiler: str) -> str | None:
    command = shutil.which(compiler)
    if command is None:
        return f"{compiler!r} is not found"
    try:
        subprocess.run([command, "--version"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return f"{command!r} does not answer to --version"
    return None


def _signature(graph: GraphModule) -> tuple[int, int]:
    return len(placeholders(graph.graph)), len(output_of(graph.graph).args[0])
