"""image.pushed, rollback.requested → deployer → model.deployed | model.superseded | deployment.failed.

One deployer per target. It starts exactly the Bento that was pushed, sends it the rows that the evaluator predicted,
moves the route, keeps the previous version warm, and keeps the live version running.
"""
