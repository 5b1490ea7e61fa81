"""The child processes: a backend, the reference, or what measures the machine."""
