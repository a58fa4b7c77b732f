"""From panes to epochs: collecting, thresholds, closing, reviews."""
