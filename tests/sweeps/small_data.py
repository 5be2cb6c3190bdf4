"""Sizes of the small data sets, all different."""

SMALL = {"values": (2, 2, 2, 2), "items": 97, "mean_length": 6.0, "max_length": 9, "text_width": 10, "image_width": 14}
