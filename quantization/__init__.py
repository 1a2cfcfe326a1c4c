"""Quantization of a float bundle to INT8: post-training, with training, in mixed precision; its report and study."""
