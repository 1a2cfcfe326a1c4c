"""Workstation side: export to a bundle, INT8, comparison, predicted times."""
