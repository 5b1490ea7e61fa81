"""One process per backend, and only one of them ever running."""
