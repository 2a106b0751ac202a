import pipeline
from sklearn.datasets import load_breast_cancer


def test_finds_most_malignant_tumours():
    measurements, benign = load_breast_cancer(return_X_y=True)
    model = pipeline.build().set_params(n_estimators=20, random_state=0).fit(measurements[:400], benign[:400])
    malignant = benign[400:] == 0
    assert (model.predict(measurements[400:])[malignant] == 0).mean() > 0.8
