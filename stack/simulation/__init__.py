"""A simulated host: it asks replicas for recommendations and answers by a frozen response model. Labelled so wherever it shows."""
