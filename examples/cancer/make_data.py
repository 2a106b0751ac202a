"""Writes data/cancer.parquet from the copy of the Wisconsin data that ships with scikit-learn."""

from pathlib import Path

from sklearn.datasets import load_breast_cancer


def main() -> None:
    target = Path(__file__).parent / "data" / "cancer.parquet"
    bunch = load_breast_cancer(as_frame=True)
    frame = bunch.data.rename(columns=lambda name: name.replace(" ", "_"))
    frame["diagnosis"] = [str(bunch.target_names[code]) for code in bunch.target]
    target.parent.mkdir(exist_ok=True)
    frame.to_parquet(target, index=False)


if __name__ == "__main__":
    main()
