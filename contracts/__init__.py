"""What every room agrees on: events, envelope, artifact references, project spec, bus topology.

Pydantic only. Imports nothing of ours, so any Python program may depend on it.
"""
