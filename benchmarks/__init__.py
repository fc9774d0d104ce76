"""Measurements, run by hand. They print figures and fail nothing: machines differ, and these are shared."""
