"""Loads pipelines. Nothing in here knows an architecture; that is what conf/model/ is for."""
