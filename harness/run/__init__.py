"""A run: cases and backends in, records out."""
