"""Workstation side: train the student."""
