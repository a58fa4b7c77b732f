"""Every metric of the system, declared once with its description; the reference is generated from here.

A service adds its metrics to :class:`MetricRegister` and uses ``METRICS.<name>``; no metric is made elsewhere.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REGISTRY = CollectorRegistry()
LATENCY_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


def _counter(name: str, description: str, *labels: str) -> Counter:
    return Counter(f"fincoach_{name}", description, labels, registry=REGISTRY)


def _gauge(name: str, description: str, *labels: str) -> Gauge:
    return Gauge(f"fincoach_{name}", description, labels, registry=REGISTRY)


def _histogram(name: str, description: str, *labels: str) -> Histogram:
    return Histogram(f"fincoach_{name}", description, labels, registry=REGISTRY, buckets=LATENCY_BUCKETS)


class MetricRegister:
    """All metrics, by service."""

    # every service
    outbox_published = _counter("outbox_published_total", "Outbox rows published and acknowledged.", "service")
    consumer_position = _gauge(
        "consumer_position_offset", "Next offset that a consumer will read.", "group", "topic", "partition"
    )
    consumer_lag = _gauge(
        "consumer_lag_records",
        "Records between a consumer's position and the end of its partition.",
        "group",
        "topic",
        "partition",
    )
    messages_handled = _counter(
        "messages_handled_total", "Messages handled, by outcome (handled, dead_lettered, retried).", "group", "outcome"
    )
    commands_answered = _counter(
        "commands_answered_total", "Commands answered, by type and outcome.", "command", "outcome"
    )

    # streams
    streams_records = _counter(
        "streams_records_total",
        "Records of ledger topics, by outcome (archived, duplicate, dead_lettered, not_consented).",
        "topic",
        "outcome",
    )
    streams_dead_letters = _counter(
        "streams_dead_letters_total", "Records of ledger topics that were put aside, by reason.", "topic", "reason"
    )
    streams_batch_seconds = _histogram("streams_batch_seconds", "Time of one batch from decode to commit.", "topic")
    streams_lost_compares = _counter(
        "streams_lost_compares_total", "Batches dropped because another worker had moved the ledger on.", "topic"
    )
    streams_dataset_counted = _gauge(
        "streams_dataset_counted_events", "Events counted towards the open epoch (live view).", "model_type"
    )
    streams_dataset_quality = _gauge(
        "streams_dataset_quality_ratio", "Quality score of the open epoch (live view).", "model_type"
    )
    streams_epochs = _counter(
        "streams_epochs_total", "Epochs closed because threshold and quality were reached.", "model_type"
    )

    # trainers
    trainers_runs = _counter("trainers_runs_total", "Trainings ended, by verdict.", "model_type", "verdict")
    trainers_run_seconds = _gauge("trainers_run_seconds", "Duration of the last training.", "model_type")
    trainers_queue_jobs = _gauge("trainers_queue_jobs", "Jobs waiting or running.", "status")

    # deployer
    deployer_decisions = _counter("deployer_decisions_total", "Rollout decisions, by kind.", "model_type", "decision")
    deployer_sequence = _gauge("deployer_sequence_number", "Sequence of the desired state.", "model_type")

    # serving
    serving_requests = _counter(
        "serving_requests_total", "HTTP requests answered, by route and status.", "route", "status"
    )
    serving_request_seconds = _histogram("serving_request_seconds", "Time to answer a prediction.", "model_type")
    serving_predictions = _counter(
        "serving_predictions_total", "Predictions answered, by version kind.", "model_type", "kind"
    )
    serving_swaps = _counter("serving_swaps_total", "Versions swapped in.", "model_type")
    serving_swap_failures = _counter(
        "serving_swap_failures_total", "Versions that could not be loaded; the old one goes on serving.", "model_type"
    )
    serving_log_lost = _counter(
        "serving_prediction_log_lost_total", "Predictions that could not be logged because the bounded queue was full."
    )
    serving_log_queue = _gauge("serving_prediction_log_queue_records", "Predictions waiting to be logged.")
    serving_state_unavailable = _counter(
        "serving_state_unavailable_total", "Requests answered without the user's state because the database was away."
    )


METRICS = MetricRegister()


def render() -> bytes:
    """Return all metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)
