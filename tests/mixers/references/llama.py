"""Full attention."""

from tests.mixers.rotary_layer import RotaryLayer


class Llama(RotaryLayer):
    mixer = "full"
    source = "`LlamaAttention`"
    module, name = "llama", "Llama"
    choices = "nothing"
    cases = ({"heads": 4, "rope": 10000.0}, {"heads": 4, "kv_heads": 1, "rope": 10000.0})
