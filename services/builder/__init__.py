"""model.approved → builder → image.pushed | build.failed.

It builds the Bento of an approved version in a child process, and puts it where deployers fetch it: on the embedded
default the artifact store.
"""
