"""How people and programs steer the system: commands, answers, lists and the status of the loop."""
