"""Inductor's backend. Compiling takes seconds a graph, so one graph holds all that can go wrong in one."""

import json
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from functrain import engine, random, tree
from functrain.engine.backends.inductor import artifact
from functrain.engine.backends.inductor import compiling as inductor
from functrain.engine.tracing.to_graph import trace
from functrain.engine.transforms.scanning.scans import scan
from functrain.errors import CompileFailed, CompilerMissing

TABLE = torch.arange(4.0)  # a constant that the function closes over


def tricky(a, b, c, x, w):
    """Swaps, views, duplicates, untouched inputs, a constant and sums with factors; donated are a, b and c."""
    hidden = torch.tanh(torch.addmm(x, x, w, alpha=0.5, beta=2.0)) + TABLE
    product = torch.add(x @ w, x, alpha=0.9)
    grad, loss = torch.func.grad_and_value(lambda w: ((x @ w) ** 2).mean())(w)
    return [b, a, c, hidden, hidden.t(), w - 0.1 * grad, x, a + b, loss, hidden, product]


DONATED = ((0, 0), (1, 1), (2, 2))


def inputs():
    gen = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=gen) for s in ((5,), (5,), (3,), (6, 4), (4, 4))]


def traced(f, *args):
    found = trace(f, args)
    return found.gm, found.inputs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("FUNCTRAIN_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield Path(os.environ["FUNCTRAIN_CACHE"]) / "inductor"
    patch.undo()


@pytest.fixture(scope="module")
def compiled(folder):
    """The function, compiled; and what was printed meanwhile."""
    gm, examples = traced(tricky, *inputs())
    gm.meta["name"] = "tricky"
    patch, said = pytest.MonkeyPatch(), []
    patch.setattr(inductor, "_say", said.append)
    step = inductor.compile(gm, examples, DONATED)
    patch.undo()
    return step, "".join(said)


def again(donated=DONATED):
    gm, examples = traced(tricky, *inputs())
    return inductor.compile(gm, examples, donated)


def never(*_):
    raise AssertionError("compiled, where the entry should have been loaded")


def check_all(step, donated=DONATED):
    given, before = inputs(), inputs()
    expected = tricky(*inputs())
    result = step(given)
    torch.testing.assert_close(result, expected)
    assert all(result[o] is given[i] for i, o in donated)
    kept = [i for i in range(5) if i not in dict(donated)]
    assert all(torch.equal(given[i], before[i]) for i in kept)
    memory = [t.untyped_storage().data_ptr() for t in result]
    assert len({*memory, *(given[i].untyped_storage().data_ptr() for i in kept)}) == len(memory) + len(kept)


def test_compiled_equals_eager_and_shares_no_memory_but_the_donated(compiled):
    check_all(compiled[0])
    check_all(compiled[0])


def test_says_in_one_line_what_is_compiled_and_how_long_it_took(compiled):
    line = compiled[1]
    assert line.startswith("functrain: compiling tricky with inductor, ")
    assert line.endswith(" s\n") and line.count("\n") == 1


def test_line_is_written_to_stderr_and_can_be_silenced(capsys):
    inductor._say("hello\n")
    logger = logging.getLogger("functrain.compile")
    logger.setLevel("WARNING")
    inductor._say("silence\n")
    logger.setLevel("INFO")
    assert capsys.readouterr().err == "hello\n"


def test_second_compilation_is_loaded(compiled, folder, monkeypatch):
    monkeypatch.setattr(inductor, "_compile", never)
    check_all(again())
    assert len(list(folder.iterdir())) == 1


def test_second_process_compiles_and_imports_nothing(compiled, folder):
    program = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import torch, test_inductor
        test_inductor.inductor._compile = test_inductor.never
        test_inductor.check_all(test_inductor.again())
        heavy = [m for m in ("torch._inductor.compile_fx", "torch._inductor.codecache") if m in sys.modules]
        assert not heavy, heavy
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_stand_ins_are_inductors_own_functions(compiled):
    from torch._inductor.codegen.memory_planning import _align
    from torch._inductor.select_algorithm import extern_kernels

    assert all(getattr(extern_kernels, name) is kernel for name, kernel in artifact._KERNELS.items())
    wrapper = """
from torch._inductor.codegen.memory_planning import _align as align
from torch._inductor.select_algorithm import extern_kernels
"""
    ours = artifact._run(wrapper, never)
    assert [ours["align"](n) for n in range(200)] == [_align(n) for n in range(200)]
    assert ours["extern_kernels"].mm is torch.mm
    import torch._inductor.select_algorithm as real

    assert artifact._StandIn("torch._inductor.select_algorithm").extern_kernels is real.extern_kernels


def test_the_wrapper_does_not_check_again_what_the_call_path_has_checked(compiled, folder):
    kept = (entry_of(folder) / "wrapper.py").read_text()
    assert "assert_size_stride(arg" not in kept
    text = "    assert_size_stride(arg3_1, (4, 4), (4, 1), 'input')\n    assert_size_stride(buf0, (4,), (1,))\n"
    assert artifact._trusting(text) == "    assert_size_stride(buf0, (4,), (1,))\n"


def entry_of(folder):
    (entry,) = [p for p in folder.iterdir() if not p.name.startswith(".")]
    return entry


@pytest.mark.parametrize(
    "damage", ["truncated library", "altered wrapper", "missing library", "no digests", "bad json"]
)
def test_damaged_entry_is_compiled_again(compiled, folder, monkeypatch, damage):
    entry = entry_of(folder)
    library = next(entry.glob("*.so"))
    content, digests = {p.name: p.read_bytes() for p in entry.iterdir()}, entry / "digests.json"
    if damage == "truncated library":
        library.unlink()  # it is mapped into this process
        library.write_bytes(content[library.name][:1000])
    if damage == "altered wrapper":
        (entry / "wrapper.py").write_bytes(content["wrapper.py"] + b"\nraise SystemExit\n")
    if damage == "missing library":
        library.unlink()
    if damage == "no digests":
        digests.unlink()
    if damage == "bad json":
        digests.write_text("{")
    called = []
    monkeypatch.setattr(inductor, "_compile", lambda plan, key, name: called.append(key))
    again()
    assert called == [entry.name] and not entry.exists()
    entry.mkdir()
    for name, data in content.items():
        (entry / name).write_bytes(data)


def test_entry_that_lies_about_its_content_is_compiled_again(compiled, folder, monkeypatch):
    entry = entry_of(folder)
    content = {p.name: p.read_bytes() for p in entry.iterdir()}
    (entry / "wrapper.py").write_text("from nowhere import nothing")
    digests = {p.name: artifact._digest(p.read_bytes()) for p in entry.iterdir() if p.name != "digests.json"}
    (entry / "digests.json").write_text(json.dumps(digests))
    assert artifact.load(entry.name) is None
    entry.mkdir()
    for name, data in content.items():
        (entry / name).write_bytes(data)


def test_of_two_writers_the_first_wins_and_nothing_is_left_over(tmp_path):
    artifact._store(tmp_path / "entry", "first = 1", {})
    artifact._store(tmp_path / "entry", "second = 2", {})
    assert (tmp_path / "entry" / "wrapper.py").read_text() == "first = 1"
    assert [p.name for p in tmp_path.iterdir()] == ["entry"]


def test_cache_that_cannot_be_written_is_said_and_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FUNCTRAIN_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(artifact, "_run", lambda *_: {})
    record = type("Record", (), {"constants": {}, "source_code": "", "current_callable": None})
    assert inductor._save("key", record).startswith(" (not kept on disk: ")
    assert artifact.load("key") is None


def test_key_depends_on_code_forms_and_options(monkeypatch):
    def key(f, *args):
        return artifact.key(*traced(f, *args))

    x = torch.ones(2, 3)
    base = key(lambda x: [x + 1], x)
    assert base == key(lambda x: [x + 1], x)
    others = [
        key(lambda x: [x + 2], x),
        key(lambda x: [x + 1], x.double()),
        key(lambda x: [x + 1], torch.ones(3, 2).t()),
    ]
    monkeypatch.setenv("TORCHINDUCTOR_FREEZING", "1")
    others.append(key(lambda x: [x + 1], x))
    assert len({base, *others}) == 5


def test_cache_directory_is_in_the_home_by_default(monkeypatch):
    monkeypatch.delenv("FUNCTRAIN_CACHE", raising=False)
    assert artifact.directory() == Path.home() / ".cache" / "functrain"


@pytest.mark.parametrize("compiler", ["false", "no-such-compiler"])
def test_missing_compiler_is_said_before_compiling(monkeypatch, compiler):
    monkeypatch.setenv("CXX", compiler)
    gm, examples = traced(lambda x: [x.sin() * 1.2345], torch.ones(3))
    with pytest.raises(CompilerMissing, match=r"needs a C\+\+ compiler.*install g\+\+.*backend='aten'"):
        inductor.compile(gm, examples)


def test_failing_compiler_shows_the_essential_lines(tmp_path):
    fake = tmp_path / "g++"
    fake.write_text(
        '#!/bin/sh\ncase "$*" in *-version*) echo "g++ 13"; exit;; esac\n'
        'echo "noise"; echo "x.h:1: error: broken" >&2; exit 1\n'
    )
    fake.chmod(0o755)
    program = """
        import sys, torch
        from functrain.engine.backends.inductor import compiling as inductor
        from functrain.engine.tracing.to_graph import trace
        from functrain.errors import CompileFailed
        traced = trace(lambda x: [x.sin() * 1.2345], [torch.ones(3)])
        try:
            inductor.compile(traced.gm, traced.inputs)
        except CompileFailed as error:
            assert "x.h:1: error: broken" in str(error) and "noise" not in str(error), error
            assert "backend='aten'" in str(error)
            raise SystemExit(7)
    """
    places = {"CXX": str(fake), "FUNCTRAIN_CACHE": str(tmp_path / "a"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "b")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, **places},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 7, done.stderr
    assert done.stderr.endswith("failed\n")


def test_failure_without_compiler_output_shows_its_first_line():
    with pytest.raises(CompileFailed, match="ValueError: first"), inductor._failures():
        raise ValueError("first\nsecond")


def test_graph_without_operations_needs_no_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "false")
    gm, examples = traced(lambda x, y: [y, x], torch.ones(3), torch.zeros(3))
    x, y = torch.ones(3), torch.zeros(3)
    assert inductor._Work(gm, examples, ()).places == [("out", 0), ("out", 1)]
    gm, examples = traced(lambda x, y: [x, y], x, y)
    assert all(a is b for a, b in zip(inductor.compile(gm, examples, ((0, 0), (1, 1)))([x, y]), [x, y], strict=True))


def test_random_draws_reach_inductor_as_operations_that_it_can_fuse():
    def drop(key, x):
        return [random.bernoulli(random.fold_in(key, "dropout"), 0.9, x.shape) * x]

    inputs = [random.key(3), torch.ones(4, 3)]
    plans = [inductor._Work(*traced(drop, *inputs), ()) for _ in range(2)]
    assert all(node.target.namespace == "aten" for node in plans[0].gm.graph.nodes if node.op == "call_function")
    assert torch.equal(plans[0].gm(*inputs)[0], drop(*inputs)[0])
    assert artifact.key(plans[0].gm, plans[0].examples) == artifact.key(plans[1].gm, plans[1].examples)


# Scans.


def epoch(w, count, xs, scale):
    scale = scale * 2

    def step(carry, x):
        w, count = carry
        grad = torch.func.grad(lambda w: ((x @ w).tanh() * scale).sum())(w)
        return (w - 0.1 * grad, count + 1), {"norm": w.norm(), "count": count}

    (w, count), ys = scan(step, (w, count), xs)
    return [w, count, ys["norm"], ys["count"], ys["norm"].mean()]


def epoch_inputs():
    gen = torch.Generator().manual_seed(1)
    return [torch.randn(4, 2, generator=gen), torch.tensor(3), torch.randn(6, 5, 4, generator=gen), torch.tensor(0.5)]


def test_scan_compiles_its_body_and_is_kept_on_disk(folder, monkeypatch):
    gm, examples = traced(epoch, *epoch_inputs())
    gm.meta["name"] = "epoch"
    made, real = [], inductor._compile
    monkeypatch.setattr(inductor, "_compile", lambda plan, key, name: made.append(name) or real(plan, key, name))
    for donated in ((), ((0, 0), (1, 1))):
        given = epoch_inputs()
        result = inductor.compile(gm, examples, donated)(given)
        torch.testing.assert_close(result, epoch(*epoch_inputs()))
        assert [result[i] is given[i] for i in (0, 1)] == [bool(donated)] * 2
        if not donated:
            assert all(torch.equal(a, b) for a, b in zip(given, epoch_inputs(), strict=True))
    assert made == ["the loop in epoch"]


def test_what_once_was_wrong_is_right_by_inductor_too(folder):
    """In one compilation, since each takes seconds."""
    from test_found_faults import CASES  # pytest finds modules beside this one

    names = [
        "written transpose of a clone",
        "two readers of one product",
        "closed over clone",
        "batch norm of clones",
        "as_strided at an offset",
        "reflection of channels_last",
        "writes through views",
        "reshaped in place",
        "gradient of an LSTM",
        "ctc_loss",
    ]
    functions, args = zip(*(CASES[name] for name in names), strict=True)

    def together(args):
        return [f(*a) for f, a in zip(functions, args, strict=True)]

    expected, compiled = together(args), engine.jit(together, backend="inductor")
    for _ in range(2):
        assert tree.differences(compiled(args), expected, rtol=1e-4, atol=1e-5) == []
