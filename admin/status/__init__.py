"""The loop as a chain of links: facts, and the first broken one."""
