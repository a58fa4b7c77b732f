"""Counting: archives what happened, folds user states, judges data sets and says when a model learns."""
