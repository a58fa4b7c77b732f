"""Kafka: producer, consumers and topic administration behind a small interface; the processing loop."""
