"""MMDetection configs: read without running them (`config`), and what each value means here (`rules` and the rest)."""
