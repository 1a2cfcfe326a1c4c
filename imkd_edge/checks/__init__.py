"""Whether a bundle, an installation, a machine is fit."""
