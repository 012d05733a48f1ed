"""Compiled graphs on disk, so that a second process compiles nothing.

PyTorch has such a cache too, but reading it imports the whole of Inductor and compiles probes of the instruction set
again, three seconds in all. An entry here is a directory with the Python wrapper that Inductor generated and the shared
libraries of its kernels; loading it runs the one and opens the others.
"""

import builtins
import hashlib
import importlib
import importlib.util
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.fx import GraphModule

from functrain.engine.backends.inductor.ownership import objection, own_folder
from functrain.errors import CacheRefused

FORMAT = 4
_LIST = "digests.json"
_POINTER = "_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR"

# What generated wrappers call by these names; anything else is taken from Inductor itself.
_KERNELS = {
    "mm": torch.mm,
    "addmm": torch.addmm,
    "bmm": torch.bmm,
    "baddbmm": torch.baddbmm,
    "convolution": torch.convolution,
}


class Unusable(Exception):
    """A graph cannot be stored, or an entry cannot be loaded; never leaves the package."""


def directory() -> Path:
    """Return where compiled graphs are kept: `$FUNCTRAIN_CACHE`, by default `~/.cache/functrain`."""
    chosen = os.environ.get("FUNCTRAIN_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "functrain"


def key(gm: GraphModule, examples: list[torch.Tensor]) -> str:
    """Return the name of a graph's entry: a digest of all that the compiled code depends on."""
    forms = [(tuple(t.shape), t.stride(), str(t.dtype), str(t.device)) for t in examples]
    codes = [m.code for m in gm.modules() if isinstance(m, GraphModule)]
    options = (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), *_inductor_options())
    parts = (FORMAT, codes, forms, options, _machine())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _inductor_options() -> list[str]:
    # Not imported for this: what nobody imported, nobody changed.
    module = sys.modules.get("torch._inductor.config")
    # A compilation sets options itself and leaves a mark when it puts them back: what has its default is not changed.
    changed = (
        []
        if module is None
        else sorted(
            line
            for line in module.codegen_config().splitlines()
            if "triton.autotune_at_compile_time" not in line and not _has_default(module, line)
        )
    )
    names = sorted(n for n in os.environ if n.startswith("TORCHINDUCTOR_") and not n.endswith("CACHE_DIR"))
    return [*changed, *(f"{n}={os.environ[n]}" for n in names)]


def _has_default(module: Any, line: str) -> bool:
    name, _, value = line.partition(" = ")
    entry = getattr(module, "_config", {}).get(name.removeprefix("torch._inductor.config."))
    return entry is not None and value == repr(entry.default)


@cache
def _machine() -> tuple[str, ...]:
    # Kernels are compiled for the processor at hand, and the cache may be in a home that several machines share.
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        flags = platform.processor()
    return (torch.__version__, str(torch.version.git_version), sys.version, platform.machine(), flags)


def load(name: str) -> Callable[[list], Any] | None:
    """Return the compiled function of an entry, or None where there is no sound one; an unsound one is removed."""
    folder = directory() / "inductor" / name
    if not _is_trusted(folder.parent):
        return None
    try:
        contents = _contents(folder)
        return _run(contents["wrapper.py"].decode(), lambda source: _library(folder / f"{source}.so"))["call"]
    except FileNotFoundError:
        if not folder.exists():
            return None
    except Exception:  # whatever is wrong with an entry, compiling again is the remedy
        pass
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _is_trusted(folder: Path) -> bool:
    """Return whether what is kept in a folder may be executed; warn where it may not."""
    why = objection(folder)
    if why:
        warnings.warn(
            f"compiled functions are neither loaded from {folder} nor kept there, as they are executed when they are "
            f"loaded, and {why}; chmod 700 a folder of your own, and name it in the environment variable "
            "FUNCTRAIN_CACHE",
            CacheRefused,
            stacklevel=2,
        )
    return why is None


def _contents(folder: Path) -> dict[str, bytes]:
    """Return the files of an entry. Raises whatever is wrong with it."""
    listed = json.loads((folder / _LIST).read_text())
    if listed["machine"] != _digest(repr(_machine()).encode()):
        raise Unusable("it was made by another PyTorch, or for another machine")
    contents = {}
    for file, digest in listed["files"].items():
        if Path(file).name != file or objection(folder / file):
            raise Unusable(f"{file} is not its own")
        contents[file] = (folder / file).read_bytes()
        if _digest(contents[file]) != digest:
            raise Unusable(f"{file} has been altered")
    return contents


def save(name: str, compiled: Any) -> None:
    """Store what Inductor compiled, a `CompiledFxGraph`. Raises `Unusable` or `OSError`, with the reason."""
    why = objection(directory() / "inductor")
    if why:
        raise Unusable(why)
    if compiled.constants:
        raise Unusable("it holds constants")
    sources: dict[str, str] = {}
    globals_ = _module_of(compiled)
    wrapper = _trusting(compiled.source_code)
    for variable, value in _run(wrapper, lambda source: _Recorded(source)).items():
        if isinstance(value, _Recorded):
            library = getattr(getattr(globals_.get(variable), "__self__", None), "__file__", None)
            if library is None:
                raise Unusable("its kernels are not shared libraries")
            sources[f"{value.source}.so"] = library
    _store(directory() / "inductor" / name, wrapper, sources)


def _trusting(wrapper: str) -> str:
    """Return a wrapper without the checks of its inputs' form: a third of what a small call costs, and done before.

    Its checks of what PyTorch's own kernels return stay.
    """
    return re.sub(r"^ +assert_size_stride\(arg\d+_\d+, .*\n", "", wrapper, flags=re.MULTILINE)


def _store(folder: Path, wrapper: str, libraries: dict[str, str]) -> None:
    own_folder(folder.parent)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder.parent))
    try:
        (draft / "wrapper.py").write_text(wrapper)
        for file, library in libraries.items():
            shutil.copyfile(library, draft / file)
        files = {path.name: _digest(path.read_bytes()) for path in sorted(draft.iterdir())}
        listed = {"machine": _digest(repr(_machine()).encode()), "files": files}
        (draft / _LIST).write_text(json.dumps(listed, indent=1))
        for path in draft.iterdir():
            path.chmod(0o600)
        # Appears whole or not at all; where another process was quicker, its entry is as good.
        if not folder.exists():
            draft.rename(folder)
    except OSError:
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _module_of(compiled: Any) -> dict[str, Any]:
    call = compiled.current_callable
    return getattr(getattr(call, "__func__", call), "__globals__", {})


class _Recorded:
    def __init__(self, source: str):
        self.source = source


def _run(wrapper: str, kernel: Callable[[str], Any]) -> dict[str, Any]:
    """Run a generated wrapper with its imports of Inductor replaced by the few things that it needs of them."""
    stand_ins = {
        "torch._inductor.async_compile": _StandIn("torch._inductor.async_compile", AsyncCompile=_async_compile(kernel)),
        "torch._inductor.select_algorithm": _StandIn(
            "torch._inductor.select_algorithm",
            extern_kernels=_StandIn("torch._inductor.select_algorithm:extern_kernels", **_KERNELS),
        ),
        "torch._inductor.hooks": _StandIn("torch._inductor.hooks", run_intermediate_hooks=lambda name, value: None),
        "torch._inductor.utils": _StandIn("torch._inductor.utils", maybe_profile=lambda *_, **__: nullcontext()),
        "torch._inductor.codegen.memory_planning": _StandIn(
            "torch._inductor.codegen.memory_planning", _align=lambda size: (size + 63) & -64
        ),
    }

    def imported(name, globals=None, locals=None, fromlist=(), level=0):
        return stand_ins[name] if name in stand_ins and fromlist else __import__(name, globals, locals, fromlist, level)

    namespace = {"__name__": "functrain_compiled", "__builtins__": {**vars(builtins), "__import__": imported}}
    namespace["wrapper"] = wrapper  # for messages about its lines
    exec(compile(wrapper, "<compiled by functrain>", "exec"), namespace)
    return namespace


class _StandIn(SimpleNamespace):
    """Has the given attributes, and takes any other from the real thing, "module" or "module:object"."""

    def __init__(self, _real: str, **attributes: Any):
        super().__init__(**attributes)
        self._real = _real

    def __getattr__(self, name: str) -> Any:
        module, _, inner = self._real.partition(":")
        real = importlib.import_module(module)
        return getattr(getattr(real, inner) if inner else real, name)


def _async_compile(kernel: Callable[[str], Any]) -> type:
    class AsyncCompile:
        def cpp_pybinding(self, argtypes: list[str], source: str) -> Any:
            return kernel(_digest(repr((argtypes, source)).encode())[:32])

        def wait(self, scope: dict[str, Any]) -> None:
            pass

    return AsyncCompile


def _library(path: Path) -> Any:
    # The library asks the environment for the function that finds a tensor's memory.
    os.environ[_POINTER] = str(torch._C._dynamo.guards._torchinductor_pyobject_tensor_data_ptr)  # pyright: ignore
    spec = importlib.util.spec_from_file_location(f"functrain_{path.stem}.kernel", path)
    module = importlib.util.module_from_spec(spec)  # pyright: ignore
    spec.loader.exec_module(module)  # pyright: ignore
    return module.kernel
