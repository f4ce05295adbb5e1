"""A full training in each framework, same data and settings: do both end within one point of accuracy?

python benchmarks/frameworks.py
"""

import sys

import tables

COMMAND = "python benchmarks/frameworks.py"
SETTINGS = ("--size", "nano", "--languages", "de,fr,es,it,nl,pt,sv,pl,cs,ru", "--epochs", "12", "--patience", "0")


def main() -> None:
    """Train twice, save, print; exit with 1 where they end more than a point apart."""
    rows = []
    for framework in ("torch", "tensorflow"):
        path = tables.WORK / f"frameworks-{framework}"
        report = tables.edgekit("train", "--framework", framework, *SETTINGS, "-o", path, "--force")
        test = report["test"]
        rows.append(
            {
                "framework": framework,
                "accuracy": test["accuracy"],
                "macro_f1": test["macro_f1"],
                "validation_accuracy": report["validation_accuracy"],
                "seconds": report["seconds"],
            }
        )
        print(f"{framework}: accuracy {100 * test['accuracy']:.2f} %, macro-F1 {100 * test['macro_f1']:.2f} %")
    tables.save_result("frameworks", f"{COMMAND}  (edgekit train {' '.join(SETTINGS)})", rows)
    apart = 100 * abs(rows[0]["accuracy"] - rows[1]["accuracy"])
    print(f"they end {apart:.2f} points apart")
    sys.exit(0 if apart <= 1 else 1)


if __name__ == "__main__":
    main()
