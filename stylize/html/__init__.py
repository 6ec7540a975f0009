"""Pages that stand alone: the report of a run, and the texts and styles that pages share."""
