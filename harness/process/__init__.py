"""One process per backend, and only one of them running while anything is timed."""
