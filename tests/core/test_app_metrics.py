"""Apps' metrics pages are read like prometheus_client reads them, or refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from fal_server.core.app_metrics import MOST_BYTES, MOST_SERIES, BadPage, merged, read_page
from fal_server.core.exposition import to_text

LABELS = {"application": "me/a", "runner_id": "r1"}


def shown(*pages: bytes) -> str:
    read = [read_page(page, {**LABELS, "runner_id": f"r{number}"}) for number, page in enumerate(pages, 1)]
    return to_text(merged(read))


def samples(text: str) -> list[tuple[str, frozenset[tuple[str, str]], float | str]]:
    return sorted(
        (s.name, frozenset(s.labels.items()), "nan" if math.isnan(s.value) else s.value)
        for family in text_string_to_metric_families(text)
        for s in family.samples
    )


@given(
    st.lists(st.tuples(st.text(max_size=8), st.floats(allow_infinity=True)), max_size=5, unique_by=lambda pair: pair[0])
)
def test_every_page_of_the_published_library_is_read_unchanged(values: list[tuple[str, float]]) -> None:
    registry = CollectorRegistry()
    gauge = Gauge("free", "Anything \\ at\nall", ["by"], registry=registry)
    for text, value in values:
        try:
            text.encode()
        except UnicodeEncodeError:
            continue
        gauge.labels(text).set(value)
    Counter("done", "D", registry=registry).inc(2)
    Histogram("took", "T", registry=registry).observe(0.3)
    Summary("size", "S", registry=registry).observe(7)
    page = generate_latest(registry)
    wanted = [(name, labels | LABELS.items(), value) for name, labels, value in samples(page.decode())]
    assert samples(shown(page)) == sorted(wanted)
    kinds = {family.name: family.type for family in text_string_to_metric_families(shown(page))}
    assert (kinds["done"], kinds["took"], kinds["size"]) == ("counter", "histogram", "summary")


@given(st.binary(max_size=200) | st.text(alphabet='az_:{}="\\,1 \n#\tHELPTY.+-e', max_size=80).map(str.encode))
def test_any_bytes_are_a_page_or_refused(page: bytes) -> None:
    try:
        found = read_page(page, LABELS)
    except BadPage:
        return
    for family in text_string_to_metric_families(to_text(merged([found]))):
        for sample in family.samples:
            assert sample.labels.items() >= LABELS.items()


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        (b"#" * (MOST_BYTES + 1), "too_large"),
        (b"a 1\nb\xff 2\n", "not_utf8"),
        (b"# x\n" * 20_000, "too_many_lines"),
        (b"".join(b'a{n="%d"} 1\n' % n for n in range(MOST_SERIES + 1)), "too_many_series"),
        (b"a 1\nthis is no metric at all\n", "malformed"),
        (b"a{b} 1", "malformed"),
        (b'a{b="c"', "malformed"),
        (b'a{b="c" d="e"} 1', "malformed"),
        (b'a{b="c",b="d"} 1', "malformed"),
        (b'a{runner_id="c",exported_runner_id="d"} 1', "malformed"),
        (b'a{b="\\x"} 1', "malformed"),
        (b"a 1e999", "malformed"),
        (b"a 0x10", "malformed"),
        (b"a " + b"1" * 100, "malformed"),
        (b"# TYPE a thing\na 1", "malformed"),
        (b"# HELP 1a text\na 1", "malformed"),
        (b"a{" + b",".join(b'l%d="x"' % n for n in range(70)) + b"} 1", "malformed"),
        (b"a" * (MOST_BYTES - 1) + b"{", "malformed"),
        (b"a{" + b"} 1 " * 200_000, "malformed"),
    ],
)
def test_a_bad_page_is_refused_as_a_whole(page: bytes, problem: str) -> None:
    with pytest.raises(BadPage, match=problem):
        read_page(page, LABELS)


def test_names_that_are_ours_are_moved() -> None:
    text = shown(b'fal_app_runners{application="forged/x",runner_id="other"} 9\n')
    assert samples(text) == [
        (
            "exported_fal_app_runners",
            frozenset({**LABELS, "exported_application": "forged/x", "exported_runner_id": "other"}.items()),
            9.0,
        )
    ]


def test_a_series_that_comes_twice_is_shown_once() -> None:
    assert len(samples(shown(b'a{x="1",y="2"} 1\na{y="2",x="1"} 2\nfal_b 1\nexported_fal_b 2\n'))) == 2


def test_a_name_of_several_runners_has_one_head() -> None:
    text = shown(b"# HELP n Text\n# TYPE n counter\nn 1\n", b"# TYPE n gauge\nn 2 1700000000000\n")
    assert text.splitlines() == [
        "# HELP n Text",
        "# TYPE n untyped",
        'n{application="me/a",runner_id="r1"} 1',
        'n{application="me/a",runner_id="r2"} 2',
    ]


def test_numbers_keep_all_their_digits() -> None:
    assert "} 1700000000.123456789" in shown(b"at 1700000000.123456789\n")
