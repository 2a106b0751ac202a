"""A forest whose trees see as many malignant as benign samples: from imbalanced-learn, not from scikit-learn."""

from imblearn.ensemble import BalancedRandomForestClassifier


def build() -> BalancedRandomForestClassifier:
    return BalancedRandomForestClassifier(n_estimators=100)
