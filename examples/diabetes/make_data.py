"""Writes data/diabetes.csv, in the units it was measured in, from the copy that ships with scikit-learn."""

from pathlib import Path

from sklearn.datasets import load_diabetes


def main() -> None:
    target = Path(__file__).parent / "data" / "diabetes.csv"
    frame = load_diabetes(as_frame=True, scaled=False).frame.rename(columns={"target": "progression"})
    target.parent.mkdir(exist_ok=True)
    frame.to_csv(target, index=False)


if __name__ == "__main__":
    main()
