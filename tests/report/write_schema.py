"""Writes the published schema of the report after its document was changed: python -m tests.report.write_schema"""

from pathlib import Path

from edgekit.report import document

if __name__ == "__main__":
    path = Path(document.__file__).with_name("report.schema.json")
    path.write_text(document.report_schema_text(), encoding="utf-8")
