"""Reports: what an outcome looks like on a terminal, in JSON and on GitHub. They read records and call no rule."""
