"""The leak gate: no output may depend on later inputs, on other sequences of the batch, or on an
earlier call.

`gate` holds its two moments. `mixers` probes one module in float64, all positions of it; `walk`
probes the whole stack under the run's own conditions.
"""

from hybridlab.evaluation.leak.conditions import conditions_of
from hybridlab.evaluation.leak.finding import Kind, Leak, LeakError
from hybridlab.evaluation.leak.gate import check_plan, check_trained, mixer_leak, refuse, stack_leak
from hybridlab.evaluation.leak.lengths import LENGTHS, probe_lengths

__all__ = [
    "LENGTHS",
    "Kind",
    "Leak",
    "LeakError",
    "check_plan",
    "check_trained",
    "conditions_of",
    "mixer_leak",
    "probe_lengths",
    "refuse",
    "stack_leak",
]
