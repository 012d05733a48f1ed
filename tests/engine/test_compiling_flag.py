"""What library code does with `torch.compiler.is_compiling()`, which it takes for a bool."""

import torch

from functrain.engine.tracing.compiling_flag import compiling


def test_the_flag_computes_as_the_bool_that_it_is():
    with compiling():
        flag = torch.compiler.is_compiling()
        assert (flag | False, False | flag, flag & True, True & flag, flag ^ True, True ^ flag) == (1, 1, 1, 1, 0, 0)
        tracing = False
        tracing |= flag
        assert tracing is True and int(flag) == 1 and ["no", "yes"][flag] == "yes" and flag and flag == True  # noqa: E712
