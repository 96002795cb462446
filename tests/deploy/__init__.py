"""The deployment files agree with the program."""
