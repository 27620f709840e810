"""Pictures of the native run: what the loop did against what the spec expects. Needs the extra `fmcheck[plots]`.

Numbers are gathered into small dataclasses first, which needs no matplotlib (`times`, `states`, `velocities`, `decoded`,
`quantity`, `finding`), and drawn second (`draw_...`). `album` says which pictures there are.
"""
