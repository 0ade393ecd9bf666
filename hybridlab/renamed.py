"""Names that the configuration had before version 0.2.0, and what they are called now.

An old name is refused in a line that gives the new one (`hybridlab.build`); a record that holds one is read with the new
one (`hybridlab.records.schema1`). Nothing else knows the old names.
"""

# `_target_`: the classes that moved into rooms.
TARGETS = {
    "hybridlab.evaluation.attention.Attention": "hybridlab.evaluation.measures.attention.Attention",
    "hybridlab.evaluation.memory.Memory": "hybridlab.evaluation.measures.memory.Memory",
    "hybridlab.evaluation.redundancy.Redundancy": "hybridlab.evaluation.measures.redundancy.Redundancy",
    "hybridlab.evaluation.streaming.Streaming": "hybridlab.evaluation.measures.streaming.Streaming",
    "hybridlab.mixers.based.Based": "hybridlab.mixers.linear.based.Based",
    "hybridlab.mixers.bigbird.Bigbird": "hybridlab.mixers.sparse.bigbird.Bigbird",
    "hybridlab.mixers.delta.Delta": "hybridlab.mixers.linear.delta.Delta",
    "hybridlab.mixers.differential.Differential": "hybridlab.mixers.attention.differential.Differential",
    "hybridlab.mixers.dilated.Dilated": "hybridlab.mixers.sparse.dilated.Dilated",
    "hybridlab.mixers.full.Full": "hybridlab.mixers.attention.full.Full",
    "hybridlab.mixers.gated_conv.GatedConv": "hybridlab.mixers.conv.gated_conv.GatedConv",
    "hybridlab.mixers.gated_delta.GatedDelta": "hybridlab.mixers.linear.gated_delta.GatedDelta",
    "hybridlab.mixers.gla.GLA": "hybridlab.mixers.linear.gla.GLA",
    "hybridlab.mixers.h3.H3": "hybridlab.mixers.conv.h3.H3",
    "hybridlab.mixers.hyena.Hyena": "hybridlab.mixers.conv.hyena.Hyena",
    "hybridlab.mixers.kda.KDA": "hybridlab.mixers.linear.kda.KDA",
    "hybridlab.mixers.linear.Linear": "hybridlab.mixers.linear.linear.Linear",
    "hybridlab.mixers.linformer.Linformer": "hybridlab.mixers.low_rank.linformer.Linformer",
    "hybridlab.mixers.linformer_causal.LinformerCausal": "hybridlab.mixers.low_rank.linformer_causal.LinformerCausal",
    "hybridlab.mixers.long_conv.LongConv": "hybridlab.mixers.conv.long_conv.LongConv",
    "hybridlab.mixers.lru.LRU": "hybridlab.mixers.ssm.lru.LRU",
    "hybridlab.mixers.mamba.Mamba": "hybridlab.mixers.ssm.mamba.Mamba",
    "hybridlab.mixers.mamba2.Mamba2": "hybridlab.mixers.ssm.mamba2.Mamba2",
    "hybridlab.mixers.moba.Moba": "hybridlab.mixers.sparse.moba.Moba",
    "hybridlab.mixers.nsa.Nsa": "hybridlab.mixers.sparse.nsa.Nsa",
    "hybridlab.mixers.nystrom.Nystrom": "hybridlab.mixers.low_rank.nystrom.Nystrom",
    "hybridlab.mixers.nystrom_causal.NystromCausal": "hybridlab.mixers.low_rank.nystrom_causal.NystromCausal",
    "hybridlab.mixers.performer.Performer": "hybridlab.mixers.linear.performer.Performer",
    "hybridlab.mixers.retention.Retention": "hybridlab.mixers.linear.retention.Retention",
    "hybridlab.mixers.rglru.Rglru": "hybridlab.mixers.ssm.rglru.Rglru",
    "hybridlab.mixers.routing.Routing": "hybridlab.mixers.sparse.routing.Routing",
    "hybridlab.mixers.rwkv7.RWKV7": "hybridlab.mixers.linear.rwkv7.RWKV7",
    "hybridlab.mixers.s4.S4": "hybridlab.mixers.ssm.s4.S4",
    "hybridlab.mixers.s4d.S4D": "hybridlab.mixers.ssm.s4d.S4D",
    "hybridlab.mixers.short_conv.ShortConv": "hybridlab.mixers.conv.short_conv.ShortConv",
    "hybridlab.mixers.sliding.Sliding": "hybridlab.mixers.sparse.sliding.Sliding",
    "hybridlab.mixers.strided.Strided": "hybridlab.mixers.sparse.strided.Strided",
    "hybridlab.tasks.compression.Compression": "hybridlab.tasks.synthetic.compression.Compression",
    "hybridlab.tasks.copying.Copying": "hybridlab.tasks.synthetic.copying.Copying",
    "hybridlab.tasks.documents.Documents": "hybridlab.tasks.text.documents.Documents",
    "hybridlab.tasks.fuzzy_recall.FuzzyRecall": "hybridlab.tasks.synthetic.fuzzy_recall.FuzzyRecall",
    "hybridlab.tasks.in_context_recall.InContextRecall": "hybridlab.tasks.synthetic.in_context_recall.InContextRecall",
    "hybridlab.tasks.induction.Induction": "hybridlab.tasks.synthetic.induction.Induction",
    "hybridlab.tasks.listops.ListOps": "hybridlab.tasks.lra.listops.ListOps",
    "hybridlab.tasks.lra_image.LRAImage": "hybridlab.tasks.lra.image.LRAImage",
    "hybridlab.tasks.lra_pathfinder.LRAPathfinder": "hybridlab.tasks.lra.pathfinder.LRAPathfinder",
    "hybridlab.tasks.lra_retrieval.LRARetrieval": "hybridlab.tasks.lra.retrieval.LRARetrieval",
    "hybridlab.tasks.lra_text.LRAText": "hybridlab.tasks.lra.text.LRAText",
    "hybridlab.tasks.memorization.Memorization": "hybridlab.tasks.synthetic.memorization.Memorization",
    "hybridlab.tasks.mqar.MQAR": "hybridlab.tasks.synthetic.mqar.MQAR",
    "hybridlab.tasks.passkey.Passkey": "hybridlab.tasks.synthetic.passkey.Passkey",
    "hybridlab.tasks.planted_recall.PlantedRecall": "hybridlab.tasks.synthetic.planted_recall.PlantedRecall",
    "hybridlab.tasks.selective_copying.SelectiveCopying": "hybridlab.tasks.synthetic.selective_copying.SelectiveCopying",
}

# Settings of a class, by its present `_target_`: old name -> new name.
SETTINGS: dict[str, dict[str, str]] = {}

# Settings of `evaluation`: old name -> new name.
EVALUATION = {
    "probes": "measures",
    "also": "measures",
    "by": "groupings",
    "probe_budget": "intervention_budget",
}
