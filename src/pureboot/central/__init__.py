"""The central controller: the source of truth for sites, nodes, workflows and content."""
