"""The estimator of the project: the trainer calls `build`, seeds the estimator and fits it."""

from sklearn.ensemble import ExtraTreesClassifier


def build() -> ExtraTreesClassifier:
    return ExtraTreesClassifier(n_estimators=100)
