"""One file a version of the tables. Until the first release there is one, which every change of the tables edits."""
