"""Metrics in Prometheus' text exposition format, version 0.0.4."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels: TypeAlias = "Mapping[str, str]"


@dataclass(slots=True, kw_only=True)
class Metric:
    """A metric with its samples. It is mutable, because they are added one by one.

    Attributes:
        kind: `counter`, `gauge` or `histogram`; an app's may also be a `summary` or `untyped`.
        help: one line about it.
        samples: the suffix of the metric's name, such as `_bucket`, the labels and the value. Text is a number as an
            app has written it.
    """

    name: str
    kind: str
    help: str
    samples: list[tuple[str, Labels, float | str]] = field(default_factory=list[tuple[str, Labels, float | str]])

    def add(self, value: float, /, **labels: str) -> None:
        """Add a sample."""
        self.samples.append(("", labels, value))

    def add_histogram(self, bounds: Mapping[float, int], count: int, total: float, /, **labels: str) -> None:
        """Add the samples of a histogram.

        Args:
            bounds: the number of values at or below each bound, in ascending order.
            count: the number of all values.
            total: their sum.
        """
        for bound, below in bounds.items():
            self.samples.append(("_bucket", {**labels, "le": f"{float(bound)}"}, below))
        self.samples.append(("_bucket", {**labels, "le": "+Inf"}, count))
        self.samples.append(("_sum", labels, total))
        self.samples.append(("_count", labels, count))


def to_text(metrics: Iterable[Metric]) -> str:
    """Return metrics as text, without those that have no samples."""
    lines: list[str] = []
    for metric in metrics:
        if metric.samples:
            if metric.help:
                lines.append(f"# HELP {metric.name} {_escaped(metric.help)}")
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines += [
                f"{metric.name}{suffix}{_labels(labels)} {value if isinstance(value, str) else f'{value:.12g}'}"
                for suffix, labels, value in metric.samples
            ]
    return "".join(f"{line}\n" for line in lines)


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    pairs = ",".join(f'{name}="{_quoted(value)}"' for name, value in labels.items())
    return f"{{{pairs}}}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', r"\"")
