"""Real data sets as behavioural events, played to the topic at a chosen speed. A data set a file.

Everything here is public research data; its terms stand with each set. Nothing of a set is in this repository: two
come with the package index, the others from a data folder.
"""
