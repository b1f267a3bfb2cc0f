"""The rule by which what serves an app is added to its requirements."""

from __future__ import annotations

import copy

from hypothesis import given
from hypothesis import strategies as st

from fal.deploy.requirements import with_requirements

NAMES = st.lists(st.sampled_from(["a", "b==1", "c>=2", "d"]), max_size=4)


def flat(requirements):
    return [name for item in requirements for name in (item if isinstance(item, list) else [item])]


@given(st.one_of(st.none(), NAMES, st.lists(NAMES, min_size=1, max_size=3)), NAMES)
def test_what_is_there_stays_first_and_what_is_added_is_there(present, added):
    before = copy.deepcopy(present)
    result = with_requirements(present, added)
    assert present == before
    assert flat(result)[: len(flat(before or []))] == flat(before or [])
    assert set(added) <= set(flat(result))
    assert with_requirements(result, added) == result


@given(st.lists(NAMES, min_size=1, max_size=3), st.just(["new"]))
def test_layers_get_a_layer_of_their_own(layers, added):
    assert with_requirements(layers, added) == [*layers, added]
