"""What a model package is written against: features, data set statistics, artifacts, runtimes, training contract."""
