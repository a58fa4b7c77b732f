"""One training from snapshot to verdict, in the child process."""
