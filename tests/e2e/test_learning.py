"""What recd's training settings do to its model: the loss and the weights of positives, seen in the item biases of a checkpoint."""

import pytest
import torch

OLD, NEW = 1, 2


def lines(completion):
    """As many users watched title 1 a year ago as title 2 just now, the first ones less completely; the others are there to be negatives."""
    watches = []
    for user in range(60):
        month, item, share = ("2025-01", OLD, completion) if user % 2 else ("2026-01", NEW, 1.0)
        watches.append({"user_id": user, "item_id": item, "started_at": f"{month}-01T00:00:00+00:00", "completion": share})
    for other in range(10, 20):
        watches.append({"user_id": 90 + other, "item_id": other, "started_at": "2025-01-01T00:00:00+00:00", "completion": 1.0})
    return watches


def biases(recd, watches):
    """Of titles 1 and 2 in a checkpoint, once training rests."""
    recd.append("watch_stats", watches)
    recd.start()
    recd.wait_taken(len(watches))
    recd.wait(lambda: recd.status()["training_resting"], "training does not rest")
    assert recd.snapshot()[0] == 200
    model = torch.load(recd.data / "model_bpr.pt", weights_only=True)
    assert recd.stop() == 0
    bias = dict(zip(model["item_ids"].tolist(), model["bi"].tolist()))
    return bias[OLD], bias[NEW]


FLAT = 'emb_dim = 8; threads = 1; optimizer = "sgd"; learning_rate = 0.002; hard_share = 0.0; idle_passes = 50; recent_passes = 0; cool_passes = 0.0; deterministic = true; batch_size = 16;'


@pytest.mark.parametrize("settings, completion, ratio", [
    ("", 0.7, (0.8, 1.25)), ('loss = "bce";', 0.7, (0.8, 1.25)),
    ("half_life_days = 100.0;", 1.0, (0.0, 0.5)), ("weight_completion = 6.0;", 0.7, (0.0, 0.5)),
])
def test_weights_and_loss(make_recd, settings, completion, ratio):
    old, new = biases(make_recd(f"training = {{ {FLAT} {settings} }};"), lines(completion))
    assert new > 0 and ratio[0] * new <= old <= ratio[1] * new, (old, new)
