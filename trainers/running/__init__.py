"""Running a training: queue, orchestrator, child process."""
