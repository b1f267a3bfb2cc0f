"""The rule that adds packages to an app's requirements. They serve the app."""

from __future__ import annotations

import copy

import pytest
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


SERVING = ["fastapi==9", "pydantic==9.1", "uvicorn"]


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (["pydantic==1.10.18"], ["pydantic==1.10.18", "fastapi", "uvicorn"]),
        (["FastAPI[all]>=0.100", "numpy"], ["FastAPI[all]>=0.100", "numpy", "pydantic", "uvicorn"]),
        (["starlette<0.30"], ["starlette<0.30", "fastapi", "pydantic", "uvicorn"]),
        (["uvicorn==0.30"], ["uvicorn==0.30", "fastapi==9", "pydantic==9.1"]),
        (["pydantic_settings"], ["pydantic_settings", *SERVING]),
        ([["torch"], ["pydantic<2"]], [["torch"], ["pydantic<2"], ["pydantic<2", "fastapi", "uvicorn"]]),
        ([*SERVING, "numpy"], [*SERVING, "numpy"]),
        (["--extra-index-url https://x", "pydantic @ https://x/p.whl"], None),
    ],
)
def test_what_is_added_yields_to_what_the_app_asks_for(asked, wanted):
    assert with_requirements(asked, SERVING) == (wanted or [*asked, "fastapi", "uvicorn"])
