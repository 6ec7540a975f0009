"""Photos and folders of them: which are to be done, doing them, and keeping a record of what is done."""
