"""The run-time check of types and shapes in annotations, which pytest puts on all of `hybridlab`.

Whole numbers pass for floats, as in PEP 484 and for pyright.
"""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
