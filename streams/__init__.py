"""Counting: archives events, folds user states, judges data sets and decides when a model is trained."""
