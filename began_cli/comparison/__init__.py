"""Compare runs: read their folders, group them by settings, and put them on one page."""
