"""Trees: mapping, addressing, comparing; the errors name the leaf."""

from collections import OrderedDict, namedtuple

import pytest
import torch
import torch.utils._pytree as pytree
from hypothesis import example, given
from hypothesis import strategies as st

from functrain import tree
from functrain.errors import NotATensor, TreeMismatch


@tree.node
class Pair:
    left: object
    right: object
    label: str = tree.static(default="")


Point = namedtuple("Point", "x y")

names = st.text("abc", min_size=1, max_size=3)
trees = st.recursive(
    st.integers(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(names, inner, max_size=3),
        st.builds(Pair, inner, inner, names),
        st.builds(Point, inner, inner),
    ),
    max_leaves=8,
)


@given(trees)
def test_flatten_and_unflatten_are_inverse(t):
    found, structure = tree.flatten(t)
    assert tree.unflatten(structure, found) == t


@given(trees)
def test_map_keeps_the_structure_and_visits_each_leaf_once(t):
    doubled = tree.map(lambda leaf: 2 * leaf, t)
    assert tree.structure(doubled) == tree.structure(t)
    assert tree.leaves(doubled) == [2 * leaf for leaf in tree.leaves(t)]


@given(trees)
def test_map_of_composition_is_composition_of_maps(t):
    assert tree.map(lambda x: 2 * x + 1, t) == tree.map(lambda x: x + 1, tree.map(lambda x: 2 * x, t))


@given(trees)
def test_paths_are_one_a_leaf_and_in_order(t):
    assert [leaf for _, leaf in tree.leaves_with_path(t)] == tree.leaves(t)


@given(trees)
@example({"": {"": 1}, 3: [None, torch.ones(1)]})
@example({"a": OrderedDict(u=1, v=[torch.nn.Parameter(torch.ones(1))]), "b": {}, "c": ()})
@example(torch.ones(1))
def test_paths_are_those_of_pytorch_joined_by_dots(t):
    pairs, _ = pytree.tree_flatten_with_path(t)
    names = ("key", "idx", "name")
    parts = [[next(str(getattr(key, n)) for n in names if hasattr(key, n)) for key in path] for path, _ in pairs]
    assert tree.paths(t) == [".".join(path) for path in parts]
    assert all(a is b for (_, a), (_, b) in zip(tree.leaves_with_path(t), pairs, strict=True))


def test_map_pairs_dicts_by_key_not_by_order():
    assert tree.map(lambda a, b: a - b, {"x": 5, "y": 7}, {"y": 2, "x": 1}) == {"x": 4, "y": 5}


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ({"a": {"w": torch.ones(2)}}, {"a": {"v": torch.ones(2)}}, "a.w"),
        ({"a": torch.ones(2)}, {"a": {"w": torch.ones(2)}}, "a.w"),
        ({"a": [1, 2]}, {"a": [1]}, "a.1"),
        (Pair(1, 2), Pair(1, {"z": 2}), "right.z"),
    ],
)
def test_map_names_where_trees_differ(first, second, named):
    with pytest.raises(TreeMismatch, match=named.replace(".", r"\.")):
        tree.map(lambda a, b: a, first, second)


def test_map_tells_a_static_field_from_another():
    with pytest.raises(TreeMismatch, match="types of their branches"):
        tree.map(lambda a, b: a, Pair(1, 2, "m"), Pair(1, 2, "s"))


def test_an_error_inside_the_mapped_function_is_not_hidden():
    with pytest.raises(ValueError, match="mine"):
        tree.map(lambda leaf: (_ for _ in ()).throw(ValueError("mine")), {"a": [1]})


def test_a_node_is_frozen():
    with pytest.raises(AttributeError):
        Pair(1, 2).left = 3


def test_select_by_pattern_and_by_predicate():
    params = {"0": {"weight": 1, "bias": 2}, "2": {"weight": 3}}
    assert tree.filter(params, "*.weight") == {"0.weight": 1, "2.weight": 3}
    assert tree.filter(params, lambda path, leaf: path.startswith("0")) == {"0.weight": 1, "0.bias": 2}


def test_map_with_path():
    assert tree.map_with_path(lambda path, a, b: (path, a + b), {"a": [1, 2]}, {"a": [3, 4]}) == {
        "a": [("a.0", 4), ("a.1", 6)]
    }


def test_equal_is_bitwise():
    a = {"w": torch.tensor([1.0, float("nan")]), "n": 3}
    assert tree.equal(a, {"w": a["w"].clone(), "n": 3})
    assert not tree.equal(a, {"w": a["w"] + torch.tensor([1e-7, 0.0]), "n": 3})
    assert not tree.equal({"w": torch.ones(2)}, {"w": torch.ones(2, dtype=torch.float64)})
    assert not tree.equal({"w": torch.ones(2)}, {"v": torch.ones(2)})


def test_differences_show_path_place_and_both_values():
    a, b = {"l": {"w": torch.zeros(2, 2)}}, {"l": {"w": torch.tensor([[0.0, 0.0], [0.5, 0.25]])}}
    assert tree.differences(a, b) == ["l.w at [1, 0]: 0.0 against 0.5 (2 of 4 differ)"]
    assert tree.differences(a, b, atol=0.5) == []


def test_differences_are_at_most_ten_lines():
    many = {str(i): i for i in range(30)}
    lines = tree.differences(many, {})
    assert len(lines) == 10
    assert lines[-1] == "and 21 more"


def test_check_same_names_shapes_of_both():
    with pytest.raises(TreeMismatch, match=r"w: expected float32\(2,\), got float32\(3,\)"):
        tree.check_same({"w": torch.ones(2)}, {"w": torch.ones(3)})


def test_check_same_lists_at_most_ten():
    with pytest.raises(TreeMismatch, match="and 21 more"):
        tree.check_same({str(i): i for i in range(30)}, {})


def test_check_tensors_names_the_leaf():
    with pytest.raises(NotATensor, match=r"the state: leaf a\.0 must be a tensor, got float"):
        tree.check_tensors({"a": [0.5]}, "the state")


def test_global_norm_is_that_of_the_flat_vector():
    t = {"a": torch.randn(3, 4), "b": [torch.randn(5)]}
    flat = torch.cat([leaf.reshape(-1) for leaf in tree.leaves(t)])
    torch.testing.assert_close(tree.global_norm(t), flat.norm())
    assert float(tree.global_norm({})) == 0.0


def test_to_converts_only_floats():
    converted = tree.to({"w": torch.ones(2), "n": torch.tensor(3)}, torch.float16)
    assert converted["w"].dtype == torch.float16
    assert converted["n"].dtype == torch.int64


def test_stack_needs_one_structure():
    assert tree.equal(tree.stack([{"a": 1.0}, {"a": 2.0}]), {"a": torch.tensor([1.0, 2.0])})
    with pytest.raises(TreeMismatch):
        tree.stack([{"a": 1.0}, {"b": 2.0}])


def test_vmap_and_grad_know_nodes():
    out = torch.func.vmap(lambda pair: Pair(pair.left.sum(), pair.right, pair.label))(
        Pair(torch.ones(3, 2), torch.zeros(3), "m")
    )
    assert out.label == "m"
    assert torch.equal(out.left, torch.full((3,), 2.0))


def test_replace_puts_back_what_filter_took_out():
    params = {"0": {"weight": torch.ones(2), "bias": torch.zeros(2)}, "2": [torch.ones(1)]}
    assert tree.equal(tree.replace(params, tree.filter(params, "*")), params)
    zeroed = tree.replace(params, {path: leaf * 0 for path, leaf in tree.filter(params, "*.weight").items()})
    assert tree.equal(zeroed, {**params, "0": {"weight": torch.zeros(2), "bias": torch.zeros(2)}})
    assert tree.equal(params["0"]["weight"], torch.ones(2))


def test_replace_of_a_path_that_is_none_is_an_error():
    with pytest.raises(TreeMismatch, match=r"replace: 0\.wieght: no such leaf; the tree has 0\.weight"):
        tree.replace({"0": {"weight": 1}}, {"0.wieght": 2})
