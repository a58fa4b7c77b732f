"""From a candidate to a served version: verification, version numbers, the desired state, rolling back, what is kept."""
