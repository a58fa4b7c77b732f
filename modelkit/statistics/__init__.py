"""What a batch of events adds to a model's data set: counts, fields, contradictions and sketches. Pure."""
