"""State dicts: to and from a real torch.nn.Sequential, and what does not fit."""

import copy

import pytest
import torch

from functrain import nn, random, tree
from functrain.errors import DuplicateName, InvalidArgument, TreeMismatch

KEY = random.key(2)
X = torch.linspace(-1, 1, 4 * 1 * 8 * 6).reshape(4, 1, 8, 6)


def model():
    return nn.serial(
        nn.conv(4, 3, bias=False),
        nn.batch_norm(),
        nn.relu,
        nn.serial(nn.conv(4, 3, padding=1), nn.batch_norm(affine=False)),
        nn.flatten,
        nn.dense(5),
    )


def module():
    inner = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, padding=1), torch.nn.BatchNorm2d(4, affine=False))
    outer = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, bias=False),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        inner,
        torch.nn.Flatten(),
        torch.nn.Linear(96, 5),
    )
    outer(X)  # so that its running statistics are not the first ones
    return outer


@pytest.fixture(scope="module")
def held():
    return model().init(KEY, X)


def test_a_sequential_loads_what_a_serial_saves(held):
    loaded = module()
    loaded.load_state_dict(nn.to_state_dict(*held), strict=True)
    torch.testing.assert_close(loaded.eval()(X), model().apply(*held, X)[0])


def test_a_serial_loads_what_a_sequential_saves(held):
    saved = module()
    params, buffers = nn.from_state_dict(saved.state_dict(), *held)
    torch.testing.assert_close(model().apply(params, buffers, X)[0], saved.eval()(X))
    assert int(buffers["3"]["1"]["num_batches_tracked"]) == 1
    assert not any(leaf.requires_grad for leaf in tree.leaves(params))


def test_names_and_their_order_are_those_of_the_sequential(held):
    assert list(nn.to_state_dict(*held)) == list(module().state_dict())


def test_round_trip(held):
    assert tree.equal(nn.from_state_dict(nn.to_state_dict(*held), *held), held)
    assert nn.to_state_dict({}, {}) == {}
    assert nn.from_state_dict({}, {}, {}) == ({}, {})


def test_what_is_loaded_is_a_copy(held):
    saved = module()
    params, buffers = nn.from_state_dict(saved.state_dict(), *held)
    before = copy.deepcopy((params, buffers))
    with torch.no_grad():
        for tensor in saved.state_dict().values():
            tensor.zero_()
    assert tree.equal((params, buffers), before)


def test_what_does_not_fit_is_listed(held):
    flat = nn.to_state_dict(*held)
    del flat["0.weight"]
    flat |= {"9.bias": torch.ones(1), "5.bias": torch.ones(6), "1.weight": torch.ones(4).double(), "5.weight": 3.0}
    with pytest.raises(TreeMismatch) as caught:
        nn.from_state_dict(flat, *held)
    assert str(caught.value).splitlines() == [
        "the state_dict does not fit the model:",
        "  missing: 0.weight, float32(4, 1, 3, 3)",
        "  unexpected: 9.bias",
        "  1.weight: expected float32(4,), got float64(4,)",
        "  5.weight: expected float32(5, 96), got float",
        "  5.bias: expected float32(5,), got float32(6,)",
    ]


def test_at_most_ten_lines_are_listed(held):
    with pytest.raises(TreeMismatch) as caught:
        nn.from_state_dict({}, *held)
    _, *lines = str(caught.value).splitlines()
    assert len(lines) == 10
    assert lines[-1] == f"  and {len(nn.to_state_dict(*held)) - 9} more"


def test_one_name_for_a_parameter_and_a_buffer_is_an_error():
    with pytest.raises(DuplicateName, match=r"a parameter and a buffer have the name 0\.scale"):
        nn.to_state_dict({"0": {"scale": torch.ones(1)}}, {"0": {"scale": torch.ones(1)}})


def test_what_does_not_agree_is_kept_and_reported_where_that_is_asked_for(held):
    flat = {name: torch.full_like(value, 7) for name, value in nn.to_state_dict(*held).items()}
    del flat["0.weight"]
    flat |= {"9.bias": torch.ones(1), "5.bias": torch.ones(6)}
    params, buffers, report = nn.from_state_dict(flat, *held, strict=False)
    assert (report.missing, report.unexpected, report.wrong_shape) == (("0.weight",), ("9.bias",), ("5.bias",))
    assert len(report.matched) == len(nn.to_state_dict(*held)) - 2
    after, before = nn.to_state_dict(params, buffers), nn.to_state_dict(*held)
    for name, value in after.items():
        assert torch.equal(value, flat[name] if name in report.matched else before[name])


def test_nothing_that_agrees_is_an_error_even_so(held):
    with pytest.raises(TreeMismatch, match=r"missing: 0\.weight"):
        nn.from_state_dict({"other": torch.ones(1)}, *held, strict=False)


def test_tied_weights_stay_tied():
    weight = torch.randn(3, 3)
    flat = {"a.weight": weight, "b.weight": weight, "c.weight": weight.t(), "d.weight": weight.clone()}
    params = {name: {"weight": torch.zeros(3, 3)} for name in "abcd"}
    loaded, _ = nn.from_state_dict(flat, params, {})
    assert loaded["a"]["weight"] is loaded["b"]["weight"]
    assert len({loaded[name]["weight"].data_ptr() for name in "abcd"} | {weight.data_ptr()}) == 4
    assert torch.equal(loaded["c"]["weight"], weight.t())


def test_the_state_dict_of_a_module_with_tied_weights_fits_its_model():
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = torch.nn.Embedding(5, 3), torch.nn.Linear(3, 5)
            self.head.weight = self.embed.weight

    module, other = Tied(), Tied()
    held = nn.from_module(module).init(KEY, torch.tensor([1]))
    params, buffers = nn.from_state_dict(other.state_dict(), *held)
    assert list(nn.to_state_dict(params, buffers)) == ["embed.weight", "head.bias"]
    assert torch.equal(params["embed"]["weight"], other.embed.weight)
    assert nn.from_state_dict(other.state_dict(), *held, strict=False)[-1].unexpected == ()
    untied = other.state_dict() | {"head.weight": other.embed.weight.detach().clone()}
    with pytest.raises(TreeMismatch, match=r"unexpected: head\.weight"):
        nn.from_state_dict(untied, *held)


def test_a_module_is_no_state_dict(held):
    with pytest.raises(InvalidArgument, match=r"state_dict must be tensors by name, got Sequential; .*state_dict\(\)"):
        nn.from_state_dict(module(), *held)
