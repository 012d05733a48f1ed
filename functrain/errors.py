"""Errors that need explaining, one class each. The docstring of a class says what causes it and what to do.

Every class is a `FunctrainError` and also the builtin error that Python users expect to catch.

>>> issubclass(TreeMismatch, ValueError)
True
"""


class FunctrainError(Exception):
    """The base of every error that functrain raises on purpose."""


class TreeMismatch(FunctrainError, ValueError):
    """Two trees that must have one structure differ.

    The message lists the first differences by dotted path, with both sides. Build both trees from the same model
    (gradients come from the same parameters that an optimizer state was initialised with), or rename the keys.
    """


class NotATensor(FunctrainError, TypeError):
    """A leaf, an argument or a result should be a tensor (of a certain kind) and is not.

    The message names it by dotted path. Convert it with `torch.as_tensor`, or keep it out of the tree.
    """


class InvalidKey(FunctrainError, TypeError):
    """Something was passed as a random key that is none.

    A key is made by `random.key(seed)`: an int64 tensor of shape (..., 2). A bare integer seed is not a key.
    """


class InvalidArgument(FunctrainError, ValueError):
    """An argument is outside what the function accepts; the message says which, what came, and what is accepted."""


class ShapeMismatch(FunctrainError, ValueError):
    """An array has a shape that does not fit; the message names the axes, what was expected and what came."""


class DtypeMismatch(FunctrainError, TypeError):
    """An array has a dtype that does not fit; the message says which one was expected and how to convert."""


class DeviceMismatch(FunctrainError, ValueError):
    """Arrays that must be together are on different devices; move them with `tree.to(tree, device)`."""


class DuplicateName(FunctrainError, ValueError):
    """Two things that are told apart by name have the same one. Rename one of them."""


class RunMismatch(FunctrainError, ValueError):
    """A run is to go on under another plan: other epochs, loaders of another length, other callbacks.

    The message names both. Pass what the run was begun with; to begin a new run, pass its state instead of the run.
    """


class PaddingCounts(FunctrainError, ValueError):
    """Rows of zero weight, with which a sampler was asked to pad, change the results: some code mixes the rows.

    The message says what changed. Choose remainder "keep" or "drop", or let the layer, loss, metric or handler heed the
    weights of the batch.
    """


class SourceEnded(FunctrainError, ValueError):
    """An iterable of batches ended before the plan did, or gave none.

    The message says how many batches it gave and how many were planned. A generator can be gone through once; pass
    fewer `steps`, or something that can be iterated again.
    """


class UnknownEvent(FunctrainError, ValueError):
    """A callback handles an event that training does not have; the message lists the events and the nearest name."""


class InvalidCallbackResult(FunctrainError, TypeError):
    """A callback's handler returned something else than a run, a `Stop` or None.

    Handlers are pure: they return the changed record (`attrs.evolve(run, ...)`), `Stop(run, ...)`, or None for
    "no change".
    """


class InvalidMemory(FunctrainError, TypeError):
    """A callback's memory holds something that cannot be saved with the run.

    A memory is a tree of tensors, numbers, strings, None and frozen nodes (classes made by `tree.node`). What is live,
    such as a file or a progress bar, is the callback's `resource`.
    """


class LabelOutOfRange(FunctrainError, IndexError):
    """A label is no class of the prediction, or an index no entry of an embedding: below 0, or not below their number.

    The message says the smallest and the largest, or where code was compiled what it met. Number the classes from 0, or
    widen the last layer; an example that is to be ignored gets zero weight, not a special label.
    """


class MissingExtra(FunctrainError, ImportError):
    """Something needs a package that is not among those installed with functrain alone.

    The message names the extra to install, such as `pip install 'functrain[plot]'`.
    """


class IndexOutOfRange(FunctrainError, IndexError):
    """An index names an example that the dataset does not have; the message says which indices there are."""


class CorruptFile(FunctrainError, ValueError):
    """A file is truncated, altered or of another format; the message names it, what was expected and what is there.

    Delete it and get it again; nothing was read from it.
    """


class MissingData(FunctrainError, FileNotFoundError):
    """Files of a data set are not where they should be; the message says which, and how to get them."""


class DownloadFailed(FunctrainError, OSError):
    """A file could not be downloaded; nothing half-done is left behind. Try again, or copy the file there yourself."""


class LeakedTensor(FunctrainError, RuntimeError):
    """A tensor of a trace is used after the trace: it was kept in a variable outside of the traced function.

    Return it from the function; it is then a result like others, with memory.
    """


class NotTraceable(FunctrainError, TypeError):
    """A function under `jit` decides in Python, or shapes a result, by the values of a tensor.

    A trace is one straight line of operations, so `if`, `while`, `float()`, `.item()` and boolean indexing on the
    values of a tensor cannot be in it. Choose values with `torch.where(condition, a, b)`, loop with `scan`, pass what
    really is a number as a Python number (it is then static), or run the function without `jit`.
    """


class SideEffect(FunctrainError, TypeError):
    """A function under `jit` changes an argument, or a tensor that it closes over, in place.

    Functions are pure: return the new value instead, and donate the old one (`jit(f, donate=0)`) to save the memory.
    """


class HiddenRandomness(FunctrainError, TypeError):
    """A function under `jit` draws from PyTorch's global generator.

    Such draws are not reproducible from the arguments. Pass a key and draw with `functrain.random`.
    """


class NonTensorOutput(NotATensor):
    """A function under `jit` returns something that is neither a tensor nor None at some place of its result.

    The message names it by dotted path. Convert it with `torch.as_tensor`, or keep it out of the result: what is known
    before the call need not be computed by it.
    """


class UnhashableStatic(FunctrainError, TypeError):
    """An argument of a function under `jit` is neither a tree of tensors nor hashable.

    Whatever is not a tensor is static: it is compared to tell whether a trace can be used again, so it must be
    hashable. Convert arrays with `torch.as_tensor`, make sets frozen, or register the class with `tree.node`.
    """


class DonatedValueUsed(FunctrainError, RuntimeError):
    """A tensor was used after it had been donated to a compiled function, which has put its result into the memory.

    Go on with the value that the call returned; where the old one is needed too, call without `donate`, or pass a copy.
    """


class EagerAndCompiledDiffer(FunctrainError, AssertionError):
    """`check` found that a function gives other numbers compiled than eager; the message lists where, by path."""


class TooManyTraces(UserWarning):
    """A function under `jit` is traced again and again, as one of its arguments differs from call to call.

    The message names the argument and its values. A Python number that changes belongs into a tensor; arrays that
    change their shape are to be padded to one.
    """


class CacheRefused(UserWarning):
    """The folder of compiled functions is not the user's own, or others may write to it, so it is not used.

    What is kept there is executed when it is loaded. The message names the folder and what is wrong with it. Every
    process compiles anew until the folder is mended (`chmod 700`), or another is named in `FUNCTRAIN_CACHE`.
    """


class CompilerMissing(FunctrainError, RuntimeError):
    """`backend="inductor"` needs a C++ compiler, and there is none that works.

    Install g++ (the package `g++`, or `build-essential`), or name another one in the environment variable CXX; or use
    `backend="aten"`, which compiles nothing.
    """


class CompileFailed(FunctrainError, RuntimeError):
    """The C++ compiler rejected the code that Inductor generated, or Inductor itself failed.

    The message has the essential lines. No state was touched; `backend="aten"` runs the same graph without compiling.
    """


class CudaMissing(FunctrainError, RuntimeError):
    """`backend="cudagraph"` was asked for without a CUDA device, or with tensors that are not on one.

    Move state and data with `tree.to(tree, "cuda")`, or use `backend="aten"`.
    """


class KeyReused(FunctrainError, ValueError):
    """A random key was consumed twice inside `random.check_keys()`.

    Two draws from one key are the same numbers, not independent ones. Give each draw a key of its own with `split` or
    `fold_in`.
    """


class NotSavable(FunctrainError, TypeError):
    """Something in a value that is to be saved is neither a tensor with memory, nor data, nor a container of them.

    The message names it by dotted path. Functions, models and classes are not saved: leave them out, and make them
    again in the script that restores. `pickle` meets the same where a model, a metric or a callback holds a function
    that was made inside another one.
    """


class CannotSave(FunctrainError, OSError):
    """A file cannot be written: the disk is full or read-only, or something else stands in its place.

    The message says which file and why. What stood there before is as it was, and nothing half-done is left behind.
    """


class NoCheckpoint(FunctrainError, FileNotFoundError):
    """There is no checkpoint at a path; the message says what is there instead."""


class NewerFormat(FunctrainError, ValueError):
    """A checkpoint was saved by a newer functrain, in a format that this one does not know. Install a newer one."""


class LawBroken(FunctrainError, AssertionError):
    """A part of a training does not do what all parts of its kind do; raised by `functrain.testing`.

    The message says which part, which law, and where it is broken.
    """
