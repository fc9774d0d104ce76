"""TFTP, read-only: what firmware speaks before it speaks anything else."""
