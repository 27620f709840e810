SCHEDULERS = {}


def scheduler_subject(name): ...
