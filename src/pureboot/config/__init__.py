"""What an operator may set, and where it is read from."""
