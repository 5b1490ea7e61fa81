"""What this machine can do, and what to mind before trusting it."""
