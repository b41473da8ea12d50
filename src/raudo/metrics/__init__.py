"""Metrics: update / compute / reset over detections and labels."""
