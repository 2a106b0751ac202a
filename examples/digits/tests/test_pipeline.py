"""Run by the trainer before every training: a push whose tests fail trains nothing."""

import pipeline
from sklearn.datasets import load_digits


def test_learns_digits_from_few_images():
    images, digits = load_digits(return_X_y=True)
    model = pipeline.build().set_params(n_estimators=20, random_state=0).fit(images[:300], digits[:300])
    assert model.score(images[300:600], digits[300:600]) > 0.7


def test_gives_probabilities():
    assert hasattr(pipeline.build(), "predict_proba")
