"""A recording as if it were live: its items in time order through Synchronizer and Detector, to files and pictures."""
