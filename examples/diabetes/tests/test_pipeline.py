import pipeline
from sklearn.datasets import load_diabetes


def test_explains_part_of_the_progression():
    measurements, progression = load_diabetes(return_X_y=True, scaled=False)
    model = pipeline.build().fit(measurements[:300], progression[:300])
    assert model.score(measurements[300:], progression[300:]) > 0.3
