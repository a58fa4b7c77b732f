"""From a crossed threshold to a judged candidate: queue, snapshots, child processes, four trainers and their gates."""
