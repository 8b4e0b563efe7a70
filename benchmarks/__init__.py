"""Suites that set Edge SDK beside what a user would do without it. See docs/benchmarks.md."""
