"""image.pushed, rollback.requested → deployer → model.deployed | model.superseded | deployment.failed.

One deployer per target. It starts exactly the Bento that was pushed, asks it what the evaluator asked, moves the
route, keeps the version before warm, and keeps what is live alive.
"""
