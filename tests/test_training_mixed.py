# SPDX-License-Identifier: Apache-2.0
"""Trainings from YAML with mixed batches and with other samplers: they learn, repeat, and continue to the bit."""

import pytest
import toys

from ppcls.utils.errors import ConfigError

OPS = "DataLoader.Train.dataset.batch_transform_ops"
SAMPLER = "DataLoader.Train.sampler"
OP_SAMPLER = (
    f"{OPS}=[OpSampler: {{MixupOperator: {{alpha: 0.8, prob: 0.4}}, CutmixOperator: {{alpha: 1.0, prob: 0.4}}}}]"
)
HYBRID = f"{OPS}=[MixupCutmixHybrid: {{mixup_alpha: 0.8, cutmix_alpha: 1.0, mode: elem, label_smoothing: 0.05}}]"
RA = f"{SAMPLER}={{name: RASampler, batch_size: 8, shuffle: true, num_repeats: 3}}"
PK = f"{SAMPLER}={{name: PKSampler, batch_size: 8, sample_per_id: 4}}"
SCALES = [
    f"{SAMPLER}={{name: MultiScaleSampler, scales: [16, 12, [20, 8]], first_bs: 8, divided_factor: 4}}",
    "DataLoader.Train.dataset.name=MultiScaleDataset",
]


def losses(output):
    return [(record["epoch"], record["batch"], record["loss"]) for record in toys.records(output, "train")]


@pytest.mark.parametrize(
    "settings",
    [
        [OP_SAMPLER],
        [HYBRID, "Loss.Train.0.CELoss.epsilon=null"],
        [f"{OPS}=[FmixOperator: , MixupOperator: {{alpha: 0.2}}]"],
        [RA, OP_SAMPLER],
        [PK],
        SCALES,
    ],
    ids=["sampled", "elem", "two", "repeated", "identities", "scales"],
)
def test_a_run_in_two_parts_with_workers_equals_one_without_to_the_last_bit(train, settings):
    whole = train("whole", "Global.epochs=4", *settings)
    train("parts", "Global.epochs=2", *settings, "DataLoader.Train.loader.num_workers=2")
    parts = train("parts", "Global.epochs=4", "Global.checkpoints=auto", *settings)
    assert losses(parts) == losses(whole)
    assert toys.digests(parts / "epoch_4") == toys.digests(whole / "epoch_4")
    other = train("other", "Global.seed=8", *settings)
    assert losses(other)[0] != losses(whole)[0]


def test_mixed_batches_are_learned_and_measured(train):
    settings = ["Global.epochs=16", "Arch.dropout=0.0", f"{OPS}=[MixupOperator: {{alpha: 0.2}}]"]
    output = train("run", *settings)
    epochs = toys.records(output, "epoch")
    # The figure of training is about the class with the larger share of each mixed image.
    assert epochs[-1]["top1"] > max(0.5, epochs[0]["top1"])
    assert toys.records(output, "eval")[-1]["top1"] == 1.0


def test_labels_as_shares_with_nothing_mixed_train_like_labels(train):
    plain = losses(train("plain", "Global.epochs=1", "Loss.Train.0.CELoss.epsilon=null"))
    never = losses(
        train("never", "Global.epochs=1", "Loss.Train.0.CELoss.epsilon=null", f"{OPS}=[OpSampler: {{MixupOperator: }}]")
    )
    assert [loss for *_, loss in never] == pytest.approx([loss for *_, loss in plain], rel=1e-5)


def test_a_sampler_of_sizes_needs_a_data_set_that_takes_them(train):
    with pytest.raises(ConfigError, match="MultiScaleSampler draws sizes, which ImageNetDataset does not take; write"):
        train("run", SCALES[0])


@pytest.mark.parametrize("sampler", ["RASampler", "PKSampler", "MultiScaleSampler"])
def test_an_evaluation_refuses_a_sampler_that_draws(train, sampler):
    keys = {
        "RASampler": "batch_size: 4",
        "PKSampler": "batch_size: 4, sample_per_id: 2",
        "MultiScaleSampler": "scales: [16], first_bs: 4, divided_factor: 4",
    }[sampler]
    with pytest.raises(ConfigError, match=rf"DataLoader.Eval.sampler: {sampler} .* training only; take Distributed"):
        train("run", f"DataLoader.Eval.sampler={{name: {sampler}, {keys}}}")
