"""For each index the question that it is there to answer, and rows enough for the difference to show."""

# ruff: noqa: S608 - every word of these statements stands in this file

from __future__ import annotations

from typing import NamedTuple

ROWS = 20_000
SERIES = f"generate_series(1, {ROWS}) AS n"
MODEL = "(ARRAY['recommendation', 'segmentation', 'spending', 'goal'])[1 + n % 4]"
# One row a minute, the last one now.
MINUTE = f"now() - ({ROWS} - n) * interval '1 minute'"
HASH = "encode(sha256(n::text::bytea), 'hex')"

# In the order of the foreign keys. Only what the questions ask for differs from row to row.
FILLS = {
    "behavioral_events": '(event_id, occurred_at, user_id, event_type, interaction_type, consent, source, payload, generation, partition, "offset")'
    f" SELECT gen_random_uuid(), {MINUTE}, md5((n % 500)::text)::uuid, 'page_view', 'page_view', true, 'host', '{{}}', 1, n % 12, n / 12 FROM {SERIES}",
    "predictions": '(prediction_id, occurred_at, user_id, model_type, version, artifact_digest, kind, replica_id, payload, generation, partition, "offset")'
    f" SELECT gen_random_uuid(), {MINUTE}, md5((n % 500)::text)::uuid, {MODEL}, '1.0.0', {HASH}, 'learned', 'a', '{{}}', 1, n % 12, n / 12 FROM {SERIES}",
    "dead_letters": '(topic, generation, partition, "offset", reason, detail, raw, created_at, producer, retry_of)'
    f" SELECT 'fincoach.behavioral-events', 1, 0, n, (ARRAY['not_json', 'missing_field'])[1 + n % 2], 'why', 'raw', {MINUTE},"
    f" 'host-' || n % 20, CASE WHEN n % 10 = 0 THEN n - 5 END FROM {SERIES}",
    "training_datasets": "(dataset_type, threshold, epoch, closed_at, updated_at)"
    f" SELECT {MODEL}, 500, 1 + (n + 3) / 4, {MINUTE}, {MINUTE} FROM {SERIES}",
    "threshold_evaluations": "(model_type, epoch, decision, counted, effective_count, threshold, factors, sentence, evaluated_at)"
    f" SELECT {MODEL}, n / 100, 'waiting_for_count', n % 100, n % 100, 500, '{{}}', 'waiting', {MINUTE} FROM {SERIES}",
    "data_quality_metrics": "(training_dataset_id, anomaly_count, duplicate_count, missing_values_count, assessment_date)"
    f" SELECT d.id, 0, 0, 0, now() - part * interval '1 minute' FROM (SELECT id FROM training_datasets ORDER BY epoch LIMIT {ROWS // 10}) AS d,"
    " generate_series(1, 10) AS part",
    "training_jobs": "(model_type, epoch, status, not_before)"
    f" SELECT {MODEL}, n, CASE WHEN n > {ROWS - 20} THEN 'queued' ELSE 'done' END, {MINUTE} FROM {SERIES}",
    "snapshots": f"(model_type, ranges, epochs, cut, created_at) SELECT {MODEL}, '[]', '{{}}', '{{}}', {MINUTE} FROM {SERIES}",
    "model_training_events": "(model_type, training_dataset_id, status, start_time, created_at)"
    " SELECT dataset_type, id, CASE WHEN updated_at > now() - interval '20 minutes' THEN 'in_progress' ELSE 'completed' END, updated_at, updated_at"
    " FROM training_datasets",
    "model_versions": "(model_type, version, model_path, is_active, kind, artifact_digest, created_at)"
    f" SELECT {MODEL}, '1.0.' || n, 'store/' || n, n > {ROWS - 4}, 'learned', {HASH}, {MINUTE} FROM {SERIES}",
    "rollout_decisions": f"(model_type, decision, reason, decided_at) SELECT {MODEL}, 'promoted', 'better', {MINUTE} FROM {SERIES}",
    "outbox": "(service, topic, payload, created_at, published_at)"
    f" SELECT (ARRAY['streams', 'deployer'])[1 + n % 2], 'fincoach.alerts', 'x', {MINUTE}, CASE WHEN n <= {ROWS - 20} THEN now() END FROM {SERIES}",
    "audit_log": "(id, recorded_at, actor, action, subject, outcome, details, previous_hash, hash)"
    f" SELECT n, {MINUTE}, 'alice', 'DeployModel', 'goal', 'succeeded', '{{}}', '', {HASH} FROM {SERIES}",
}


class IndexCase(NamedTuple):
    """An index, who asks, and what."""

    name: str
    asked_by: str
    query: str


LAST_HOUR = "now() - interval '1 hour'"
ONE_DATA_SET = "(SELECT id FROM training_datasets WHERE dataset_type = 'goal' AND epoch = 2)"

CASES = (
    IndexCase(
        "ix_behavioral_events_position", "a snapshot reads an offset range",
        'SELECT * FROM behavioral_events WHERE generation = 1 AND partition = 3 AND "offset" >= 900 AND "offset" < 1000',
    ),
    IndexCase(
        "ix_behavioral_events_user_id_occurred_at", "one user's last month",
        "SELECT * FROM behavioral_events WHERE user_id = md5('7')::uuid AND occurred_at >= now() - interval '30 days'",
    ),
    IndexCase(
        "ix_predictions_model_type_occurred_at", "a model's answers of the last hour",
        f"SELECT * FROM predictions WHERE model_type = 'goal' AND occurred_at >= {LAST_HOUR}",
    ),
    IndexCase(
        "ix_dead_letters_reason_created_at", "dead letters of one reason, last hour",
        f"SELECT * FROM dead_letters WHERE reason = 'not_json' AND created_at >= {LAST_HOUR}",
    ),
    IndexCase(
        "ix_dead_letters_producer_created_at", "dead letters of one producer, last hour",
        f"SELECT * FROM dead_letters WHERE producer = 'host-7' AND created_at >= {LAST_HOUR}",
    ),
    IndexCase(
        "ix_dead_letters_retry_of", "what became of a letter that was sent again",
        "SELECT * FROM dead_letters WHERE retry_of = 1005 AND id > 1005",
    ),
    IndexCase("ix_training_datasets_updated_at", "data sets that moved lately", f"SELECT * FROM training_datasets WHERE updated_at >= {LAST_HOUR}"),
    IndexCase(
        "uq_training_datasets_open", "a model's open data set (also: only one)",
        "SELECT * FROM training_datasets WHERE dataset_type = 'goal' AND closed_at IS NULL",
    ),
    IndexCase(
        "ix_threshold_evaluations_model_type_evaluated_at", "a model's last decisions",
        "SELECT * FROM threshold_evaluations WHERE model_type = 'goal' ORDER BY evaluated_at DESC LIMIT 20",
    ),
    IndexCase(
        "ix_data_quality_metrics_training_dataset_id_assessment_date", "a data set's last assessment",
        f"SELECT * FROM data_quality_metrics WHERE training_dataset_id = {ONE_DATA_SET} ORDER BY assessment_date DESC LIMIT 1",
    ),
    IndexCase(
        "ix_training_jobs_status_not_before", "a trainer takes the next job",
        "SELECT * FROM training_jobs WHERE status = 'queued' AND not_before <= now() ORDER BY not_before LIMIT 1 FOR UPDATE SKIP LOCKED",
    ),
    IndexCase(
        "ix_snapshots_model_type_created_at", "a model's last snapshot",
        "SELECT * FROM snapshots WHERE model_type = 'goal' ORDER BY created_at DESC LIMIT 1",
    ),
    IndexCase(
        "ix_model_training_events_model_type_created_at", "a model's last trainings",
        "SELECT * FROM model_training_events WHERE model_type = 'goal' ORDER BY created_at DESC LIMIT 20",
    ),
    IndexCase(
        "ix_model_training_events_status_start_time", "trainings that run for too long",
        "SELECT * FROM model_training_events WHERE status = 'in_progress' AND start_time < now() - interval '10 minutes'",
    ),
    IndexCase(
        "ix_model_training_events_training_dataset_id", "the training of a data set",
        f"SELECT * FROM model_training_events WHERE training_dataset_id = {ONE_DATA_SET}",
    ),
    IndexCase(
        "ix_model_versions_model_type_created_at", "a model's last versions",
        "SELECT * FROM model_versions WHERE model_type = 'goal' ORDER BY created_at DESC LIMIT 20",
    ),
    IndexCase(
        "uq_model_versions_active", "a model's active version (also: only one)",
        "SELECT * FROM model_versions WHERE model_type = 'goal' AND is_active",
    ),
    IndexCase(
        "ix_rollout_decisions_model_type_decided_at", "a model's last decisions",
        "SELECT * FROM rollout_decisions WHERE model_type = 'goal' ORDER BY decided_at DESC LIMIT 20",
    ),
    IndexCase(
        "ix_outbox_unpublished", "the relay looks for work",
        "SELECT * FROM outbox WHERE service = 'streams' AND published_at IS NULL ORDER BY id LIMIT 500",
    ),
    IndexCase("ix_audit_log_recorded_at", "acts of the last hour", f"SELECT * FROM audit_log WHERE recorded_at >= {LAST_HOUR}"),
)  # fmt: skip
