"""From detections to LVIS results files, AP tables and weight norms."""
