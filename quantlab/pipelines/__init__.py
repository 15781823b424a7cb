"""Loads, calls and names the components of pipelines. Nothing in here knows an architecture; conf/model/ does."""
