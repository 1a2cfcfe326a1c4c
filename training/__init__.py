"""Workstation side: train LiDAR teacher, label encoder and student; ablations."""
