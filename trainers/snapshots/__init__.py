"""Freezing a training set, and deciding which samples are clean."""
