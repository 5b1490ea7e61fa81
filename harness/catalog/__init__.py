"""What there is to measure: suites of cases, and registered backends."""
