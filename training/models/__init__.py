"""The deployed networks: camera part, radar encoder and BEV part, and the student that joins them."""
