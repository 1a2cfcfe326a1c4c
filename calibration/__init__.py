"""INT8 calibration: which frames, which weights, which scales; radar-intensity aware."""
