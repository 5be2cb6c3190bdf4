"""From raw files to the canonical data set: a file per source, and the folder that they all write."""
