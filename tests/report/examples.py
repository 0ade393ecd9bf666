"""Made-up records like real ones: three layer groups, five kinds of mixer, 23 documents."""

import math
import random

from hybridlab.records.measurement import BOOTSTRAP, Measurement
from hybridlab.records.record import RunRecord
from hybridlab.records.run_id import identity_digest, identity_fields, run_id
from tests.report.descriptions import MEASURES, described

BUCKETS = ("0-63", "64-127", "128-255", "256-511", "512-1023", "1024-2047", "2048-4095")
LAYERS = {"early": 2, "middle": 3, "deep": 2}
SETTINGS = {
    "full": {"heads": 4, "kv_heads": None, "rope": 10000.0},
    "sliding": {"heads": 4, "window": 128},
    "linear": {"heads": 4, "chunk": 64},
    "mamba2": {"expand": 2, "head_width": 64, "state": 64},
    "gated_conv": {"conv_size": 4},
}
QUALITY = {"full": 0.0, "mamba2": 0.01, "sliding": 0.03, "linear": 0.07, "gated_conv": 0.09}
PARAMETERS = {"full": 196_736, "mamba2": 249_872, "sliding": 196_736, "linear": 196_736, "gated_conv": 197_248}


def example(*, early="gated_conv", middle="mamba2 full mamba2", deep="sliding", seed=0, status="finished", **changes):
    """Return a record whose quality depends on mixers, groups and, a little, on the seed."""
    groups = {"early": early, "middle": middle, "deep": deep}
    plan = _plan(groups)
    config = {
        "name": "hybrid",
        "seed": seed,
        "stack": {
            "width": 128,
            "groups": {
                group: {"layers": LAYERS[group], "mixer": mixer, "settings": {m: SETTINGS[m] for m in mixer.split()}}
                for group, mixer in groups.items()
            },
        },
        "task": {"length": 512, "batch": 8},
        "optimizer": {"lr": 0.003},
        "trainer": {"max_steps": 400, "accelerator": "cpu"},
    }
    fields = {
        "run_id": run_id(identity_digest(identity_fields(config))),
        "name": "hybrid",
        "status": status,
        "seed": seed,
        "config": config,
        "choices": _flat({key: value for key, value in identity_fields(config).items() if key != "seed"}),
        "plan": plan,
        "versions": {"python": "3.11.7", "hybridlab": "0.1.0", "torch": "2.13.0", "lightning": "2.6.6"},
        "commit": "4f1c2a90b7d3e5f60718293a4b5c6d7e8f901234",
        "hardware": {"machine": "x86_64", "threads": 2, "task": {"documents": {"train": 187, "test": 23}}},
        "created": f"2025-03-0{1 + seed}T10:00:00+00:00",
        "seconds": 151.3,
        "evaluations": {
            "quick": {
                "split": "test",
                "window": 512,
                "stride": 512,
                "limit": 4096,
                "tokens": 94_208,
                "documents": 23,
            }
        },
        "measurements": _measurements(groups, plan, seed) if status == "finished" else [],
    }
    fields |= changes
    return RunRecord(**{**described(fields["measurements"]), **fields})


def measurement(measure, value, measures=MEASURES, **where):
    """Return a measurement, of the test split unless another is given."""
    return Measurement(measure=measure, value=value, unit=measures[measure].unit, **{"split": "test", **where})


def run(choices, seed, measurements, validation=None, status="finished", measures=MEASURES):
    """Return a record of these measurements; `validation` is the NLL at the end of training."""
    if validation is not None:
        curve = {"split": "validation", "measure": "nll"}
        measurements = [
            *measurements,
            measurement(value=9.0, step=1, **curve),
            measurement(value=validation, step=2, **curve),
        ]
    measurements = measurements if status == "finished" else []
    return RunRecord(
        **described(measurements, measures),
        run_id=f"{choices}{seed}",
        name="demo",
        status=status,
        reason="" if status == "finished" else "DivergedError: the loss is nan",
        seed=seed,
        config={},
        choices=choices,
        created=f"2025-03-01T10:00:0{seed}+00:00",
        measurements=measurements,
    )


def _plan(groups):
    plan = []
    for group, mixer in groups.items():
        names = mixer.split()
        for index in range(LAYERS[group]):
            name = names[index % len(names)]
            plan.append(
                {
                    "layer": len(plan),
                    "group": group,
                    "mixer": name,
                    "settings": {"_target_": f"hybridlab.mixers.{name}", **SETTINGS[name]},
                    "channel": {"_target_": "hybridlab.stack.channel.SwiGLU", "expansion": 2.667},
                    "parameters": PARAMETERS[name],
                    "state_bytes": {"full": 524_288, "sliding": 130_056}.get(name, 35_328),
                    "flops": 2 * 512 * PARAMETERS[name] + (134_217_728 if name == "full" else 16_777_216),
                }
            )
    return plan


def _measurements(groups, plan, seed):
    draw = random.Random(f"{groups} {seed}")
    shared = random.Random(seed).gauss(0, 0.01)
    worse = sum(QUALITY[mixer] for value in groups.values() for mixer in value.split()) / 3
    nll = 1.52 + worse + shared + draw.gauss(0, 0.004)
    found = []

    def scored(measure, value, spread, **where):
        half = 1.96 * spread
        low, high = value - half * 0.95, value + half * 1.07
        change = {"bits_per_byte": lambda x: x / math.log(2), "perplexity": math.exp}.get(measure, float)
        low, value, high = map(change, (low, value, high))
        unit = MEASURES[measure].unit
        stated = {
            "split": "test",
            "interval": BOOTSTRAP,
            "n": 23,
            "tokens": 94_208,
            "unit": unit,
            "evaluation": "quick",
        }
        found.append(Measurement(measure=measure, value=value, low=low, high=high, **{**stated, **where}))

    everywhere = [{}] + [
        {
            "slice": "position",
            "bucket": bucket,
            "tokens": 23 * (1 + int(bucket.split("-")[1]) - int(bucket.split("-")[0])),
        }
        for bucket in BUCKETS
    ]
    for index, where in enumerate(everywhere):
        by_position = 0 if index == 0 else 0.55 * math.exp(-index / 1.6) - 0.05
        wider = 1 + index / 3
        for measure in ("nll", "bits_per_byte", "perplexity"):
            scored(measure, nll + by_position, 0.011 * wider, **where)
        for grouping, group, layers in _groupings(plan):
            here = {"grouping": grouping, "group": group, **where}
            depth = layers[-1]["layer"] / len(plan)
            reach = 1 if index == 0 else 0.5 + index / 9
            if grouping == "group":
                scored("lens", nll + by_position + 1.6 * (1 - depth - 1 / len(plan)), 0.015 * wider, **here)
            mixers = 0.12 + 0.11 * len(layers) * (1.2 - depth) - QUALITY[layers[0]["mixer"]] + draw.gauss(0, 0.006)
            scored("knockout", reach * mixers, 0.009 * wider, **here, part="mixer")
            channel = 0.25 + 0.14 * len(layers) * depth + draw.gauss(0, 0.008)
            scored("knockout", channel, 0.012 * wider, **here, part="channel")
    for context, bits in ((1, 3.391), (2, 2.804), (3, 2.389)):
        where = {"split": "test", "slice": "context", "bucket": str(context)}
        found.append(Measurement(measure="ngram_bits_per_byte", value=bits, unit="bits/byte", **where))
    for grouping, group, layers in [("stack", "", plan), *_groupings(plan)]:
        where = {"grouping": grouping, "group": group, "tokens": 512}
        for measure in ("parameters", "state_bytes", "flops"):
            value = sum(layer[measure] for layer in layers)
            found.append(Measurement(measure=measure, value=value, unit=MEASURES[measure].unit, **where))
        found.append(Measurement(measure="milliseconds", value=2.31 * len(layers), unit="ms", **where))
    found.append(Measurement(measure="tokens_per_second", value=12_345 + 10 * seed, unit="tokens/s", split="train"))
    found.append(Measurement(measure="peak_memory_bytes", value=812_400_640, unit="bytes"))
    for step in range(10, 401, 10):
        smooth = nll + 4 * math.exp(-step / 45)
        curve = {"measure": "nll", "unit": "nats/token", "step": step, "tokens": 4096 * step}
        found.append(Measurement(split="train", value=smooth + draw.gauss(0, 0.05), **curve))
        if step % 50 == 0:
            found.append(Measurement(split="validation", value=smooth + 0.02, **curve))
    return found


def fully_evaluated(record):
    """Return the record with every measure by layer group and every slice added."""
    draw = random.Random(record.seed)
    plan, found = record.plan, list(record.measurements)
    window = {"full": 512, "sliding": 128, "mamba2": 200, "linear": 90, "gated_conv": 4}
    nll = next(each.value for each in found if each.measure == "nll" and each.step is None and not each.slice)

    def add(measure, value, spread, **where):
        ends = {"low": value - 1.9 * spread, "high": value + 2 * spread, "interval": BOOTSTRAP, "n": 23}
        found.append(measurement(measure, value, **{**(ends if spread else {}), "tokens": 94_208, **where}))

    groupings = _groupings(plan) + [("layer", str(layer["layer"]), [layer]) for layer in plan]
    for grouping, group, layers in groupings:
        here = {"grouping": grouping, "group": group}
        depth, far = layers[-1]["layer"] / len(plan), max(window[layer["mixer"]] for layer in layers)
        add("block_influence", 0.4 - 0.3 * depth + 0.2 * (depth > 0.8) + draw.gauss(0, 0.01), 0.01, **here)
        add("memory_tokens", far / 6, far / 90, **here)
        lags = [1 << power for power in range(9)]
        weights = [math.exp(-lag / far) * lag**0.3 for lag in lags]
        for lag, weight in zip(lags, weights, strict=True):
            bucket = str(lag) if lag == 1 else f"{lag}-{2 * lag - 1}"
            add("influence", weight / sum(weights), 0.004, **here, slice="lag", bucket=bucket)
        attention = [layer for layer in layers if layer["mixer"] in ("full", "sliding")]
        if attention:
            add("attention_distance", far / 5, far / 60, **here)
            add("attention_entropy", math.log(far) - 1, 0.03, **here)
            add("attention_first", 0.3 - 0.2 * depth, 0.01, **here)
        if grouping == "layer":
            continue
        if grouping == "group":
            add("tuned_lens", nll + 0.9 * (1 - depth - 1 / len(plan)), 0.015, **here)
        for part in ("mixer", "channel"):
            add(
                "mean_knockout",
                0.08 + 0.07 * len(layers) * (1.2 - depth) + draw.gauss(0, 0.004),
                0.008,
                **here,
                part=part,
            )
        for block in (16, 32, 64, 128, 256):
            loss = max(0.0, 0.4 * math.exp(-block / far * 2) + draw.gauss(0, 0.002))
            add("reach", loss, 0.004 + loss / 30, **here, part="mixer", block=block)
        add("reach_tokens", 1 << max(4, math.ceil(math.log2(far)) - 1), 0, **here, part="mixer")
    groups = list(LAYERS)
    for one, other in (("early", "middle"), ("early", "deep"), ("middle", "deep")):
        pair = {"grouping": "pair", "group": f"{one} & {other}"}
        add("similarity", 0.9 - 0.25 * (groups.index(other) - groups.index(one)), 0, **pair)
        for part in ("mixer", "channel"):
            add("interaction", draw.gauss(-0.03, 0.02), 0.01, **pair, part=part)
    slices = {
        "recall": {"other tokens": (-0.06, 0.94), "recall": (0.9, 0.06)},
        "distance": {f"{1 << p}-{(2 << p) - 1}": (0.1 * p - 0.4, 0.1) for p in range(2, 11)},
        "relative_position": {"0-1x": (0.1, 0.125), "1-2x": (0.0, 0.125), "2-4x": (0.05, 0.25), "4-8x": (0.3, 0.5)},
    }
    for name, buckets in slices.items():
        for bucket, (more, share) in buckets.items():
            where = {"slice": name, "bucket": bucket, "tokens": round(94_208 * share)}
            for measure, change in (
                ("nll", float),
                ("perplexity", math.exp),
                ("bits_per_byte", lambda x: x / math.log(2)),
            ):
                add(measure, change(nll + more), 0.02, **where)
            for group in groups:
                lost = 0.2 + (0.8 if (name, bucket, group) == ("recall", "recall", "middle") else 0)
                add("knockout", lost + draw.gauss(0, 0.02), 0.02, grouping="group", group=group, part="mixer", **where)
    return RunRecord(**{**vars(record), **described(found), "measurements": found})


def _groupings(plan):
    found = {}
    for grouping in ("group", "mixer"):
        for layer in plan:
            found.setdefault((grouping, layer[grouping]), []).append(layer)
    return [(grouping, group, layers) for (grouping, group), layers in found.items()]


def _flat(node, path=""):
    if not isinstance(node, dict):
        return {path: node}
    return {
        name: leaf for key, value in node.items() for name, leaf in _flat(value, f"{path}.{key}".strip(".")).items()
    }
