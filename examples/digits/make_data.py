"""Writes data/digits.parquet from the copy of the UCI digits that ships with scikit-learn."""

from pathlib import Path

from sklearn.datasets import load_digits


def main() -> None:
    target = Path(__file__).parent / "data" / "digits.parquet"
    frame = load_digits(as_frame=True).frame.rename(columns={"target": "digit"})
    target.parent.mkdir(exist_ok=True)
    frame.to_parquet(target, index=False)


if __name__ == "__main__":
    main()
