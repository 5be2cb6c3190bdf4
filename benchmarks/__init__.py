"""Speed against the peers and against plain references, side by side in one run."""
