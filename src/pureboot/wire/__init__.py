"""The JSON both sides speak, and nothing else."""
