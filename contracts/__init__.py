"""Formats that all services share: events, envelope, artifact references, model.yaml, names on the bus.

This package needs only pydantic and PyYAML, and imports no other package of Bentobelt.
"""
