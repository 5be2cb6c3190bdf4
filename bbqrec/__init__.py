"""BBQRec: behaviour-bind quantization for multi-modal sequential recommendation (arXiv 2504.06636)."""

__version__ = "0.1.0"
