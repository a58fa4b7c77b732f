"""What trainer and replica must share: the feature reducer, the artifact manifest and the four runtimes."""
