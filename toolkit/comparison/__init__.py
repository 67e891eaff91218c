"""Measures and compares transports: from what a user asks for to records, and from records to verdicts.

    scenario -> plan -> campaign -> trial (on a testbed, by two workers) -> records
    records -> summary (rows and verdicts) -> toolkit.report

Start reading in plan.py (what is measured, in which order), trial.py (one transfer) and summary.py (the verdicts).
docs/method.md describes the method, docs/data-format.md the records.
"""
