"""What the machine is, and how many threads it is given."""
