"""The tables of results/ and docs/results, computed from the records: `make results` writes them into the pages."""
