"""Runs beside each other: what differed, what came of it, on one page."""
