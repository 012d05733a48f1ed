"""What runs code of the user's inside of a function of PyTorch: there the rules of the application go on.

Its draws come from the key and its writes are seen in hooks, in backward passes and where a transform runs a
`torch.autograd.Function`.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from functrain.engine.tracing.modes.staying_modes import CALLING
from functrain.engine.tracing.own_functions import APPLIED, in_modes, within
from functrain.nn.interop.rules.running import Running, rule


@rule(*CALLING)
def _stay(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    run.check(args)
    return run.stay(func, args, kwargs)


@rule(APPLIED)
def _apply(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    function, *inputs = args
    run.check(inputs)
    return func(in_modes(function, run.again), *inputs, **kwargs)


@rule(Tensor.register_hook, Tensor.register_post_accumulate_grad_hook)
def _hook(run: Running, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    tensor, hook = args if len(args) == 2 else (*args, kwargs["hook"])
    run.check((tensor,))
    return func(tensor, within(hook, run.again))
