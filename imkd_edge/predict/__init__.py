"""Predicted times of a bundle on a Jetson, from its graph and a roofline; nothing is run."""
