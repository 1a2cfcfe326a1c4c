"""Visualisation: pictures of frames and results."""
