"""Renders the register of metrics as a page for operators."""

from __future__ import annotations

from prometheus_client.metrics import MetricWrapperBase

from backends.telemetry.metrics import MetricRegister
from tools.reference.markdown import page, table


def metric_row(metric: MetricWrapperBase) -> list[str]:
    """Return one metric as a row: its scraped name, kind, labels, description."""
    family = next(iter(metric.describe()))
    suffix = "_total" if family.type == "counter" else ""
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001 - the library has no public way
    return [f"`{family.name}{suffix}`", family.type, labels, family.documentation]


def registered_metrics() -> list[MetricWrapperBase]:
    """Return every metric of the register in order of declaration."""
    return [value for value in vars(MetricRegister).values() if isinstance(value, MetricWrapperBase)]


def render() -> str:
    """Return docs/reference/metrics.md."""
    rows = [metric_row(metric) for metric in registered_metrics()]
    return page("Metrics", "At `/metrics` of every process.", table(["metric", "kind", "labels", "meaning"], rows))
