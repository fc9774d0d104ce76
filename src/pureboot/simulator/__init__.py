"""Machines and sites in software, over real sockets: what the demo, the load tests and the fault tests drive."""
