"""Workstation side: export of a trained student to a bundle."""
