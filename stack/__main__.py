"""``python -m stack``: the same as the command ``fincoach-learning``."""

from stack.cli import main

main()
