"""Rows of a study -> tables and figures. No Ray, no torch: everything here works on exported rows, too."""
