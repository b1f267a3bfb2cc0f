"""Metrics as text, read back by Prometheus' own client."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from fal_server.core.exposition import Metric, to_text

# Without characters that Prometheus' client takes for line ends, or strips.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r\x85\u2028\u2029\x0b\x0c\x1c\x1d\x1e"), max_size=20)


@given(TEXTS, TEXTS, st.integers(0, 2**40))
def test_labels_come_back_as_they_were(first: str, second: str, value: int) -> None:
    metric = Metric(name="fal_x", kind="gauge", help="A line\nand \\ another")
    metric.add(value, one=first, two=second)
    (family,) = text_string_to_metric_families(to_text([metric, Metric(name="fal_none", kind="gauge", help="")]))
    (sample,) = family.samples
    assert (family.name, family.type, family.documentation) == ("fal_x", "gauge", "A line\nand \\ another")
    assert sample.labels == {"one": first, "two": second}
    assert abs(sample.value - value) <= 1e-11 * value


def test_a_histogram() -> None:
    metric = Metric(name="fal_seconds", kind="histogram", help="How long")
    metric.add_histogram({0.5: 1, 1.0: 3}, 4, 7.5, application="me/a")
    (family,) = text_string_to_metric_families(to_text([metric]))
    assert family.type == "histogram"
    assert [(s.name, s.labels.get("le"), s.value) for s in family.samples] == [
        ("fal_seconds_bucket", "0.5", 1),
        ("fal_seconds_bucket", "1.0", 3),
        ("fal_seconds_bucket", "+Inf", 4),
        ("fal_seconds_sum", None, 7.5),
        ("fal_seconds_count", None, 4),
    ]
