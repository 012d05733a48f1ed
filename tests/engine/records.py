"""Records that tests of static values and of surroundings compare."""

import attrs

from functrain import tree


@attrs.define
class Loose:
    x: object


@tree.node
class Node:
    x: object
