"""FinCoach's client for behavioural events: the event types, their validation, and the producer.

A host application installs this wheel alone. It knows nothing of the learning system behind the topic.
"""
