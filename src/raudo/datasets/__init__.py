"""Data set formats: each reads one way of storing labelled images."""
