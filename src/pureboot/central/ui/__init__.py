"""Central's pages. A page calls what the API's route calls; how to add one is in `areas.py`."""
