"""Network boot that keeps working when a site is cut off from its centre."""

__version__ = "0.1.0"
