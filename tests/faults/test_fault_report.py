"""The document shows what was measured, and what it says of each fault is in words that can be checked."""

import json

from fault_report import DOC, filled, table


def test_the_document_has_the_table_of_the_measured_faults():
    measured = json.loads(DOC.with_suffix(".json").read_text())
    assert filled(DOC.read_text(), measured) == DOC.read_text()
    assert measured and all(entry["lost"] == 0 and entry["equal"] for entry in measured)


def test_a_table_sums_what_was_injected_and_lost():
    entry = {"fault": "a | b", "injected": 3, "runs": 6, "lost": 1, "equal": False, "seconds": 1.5}
    text = table([{**entry, "recovery": "by itself", "seen": "x | y"}, {**entry, "recovery": "never", "seen": "z"}])
    assert "| 3 | 1 of 6 | - | by itself | 1.5 | x \\| y |" in text
    assert text.endswith("Faults injected: 6; runs lost: 2.\n")
