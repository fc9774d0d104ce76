"""The domain, pure: no input or output, no clock, no environment. Standard library only."""
