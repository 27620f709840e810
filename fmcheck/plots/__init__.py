"""Pictures of the native run: what the loop did against what the spec expects. Needs the extra `fmcheck[plots]`.

Numbers are gathered into small dataclasses first (`times`, `states`, `velocities`, `decoded`, `quantity`, `finding`).
That needs no matplotlib. They are drawn second (`draw_...`). `album` says which pictures there are.
"""
