"""Results for the eye: pictures."""
