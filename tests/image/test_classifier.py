"""The judge's network: what it is told, and what shifting does."""

import torch
import torch.nn.functional as F

from image.classifier import Classifier, shifted


def build(shape: tuple[int, int, int], conditions: int, several: bool) -> Classifier:
    torch.manual_seed(0)
    return Classifier(shape, 17, conditions, several, width=8).eval()


def test_loss_of_one_id_is_the_cross_entropy_of_the_label_before_it():
    model = build((1, 8, 6), 4, several=False)
    images, condition = torch.randint(17, (5, 1, 8, 6)), torch.tensor([[1], [3], [2], [3], [1]])
    keys = torch.arange(5)
    losses, logsnr = model(images, condition, keys, torch.rand(5))
    logits = model.logits(model.features(images))
    expected = -logits.log_softmax(1)[keys, torch.tensor([0, 2, 1, 2, 0])]
    assert logsnr is None
    torch.testing.assert_close(losses, expected)


def test_loss_of_several_ids_asks_of_each_id_whether_it_is_there():
    model = build((1, 8, 6), 6, several=True)
    images, condition = torch.randint(17, (2, 1, 8, 6)), torch.tensor([[1, 4, 0], [5, 2, 3]])
    losses, _ = model(images, condition, torch.arange(2), torch.rand(2))
    logits = model.logits(model.features(images))
    there = torch.tensor([[1.0, 0, 0, 1, 0], [0, 1, 1, 0, 1]])
    expected = -(there * F.logsigmoid(logits) + (1 - there) * F.logsigmoid(-logits)).mean(1)
    torch.testing.assert_close(losses, expected)


def test_features_of_a_picture_do_not_depend_on_its_neighbours():
    for shape in ((1, 8, 8), (3, 28, 28), (3, 64, 64)):
        model = build(shape, 4, several=False)
        images = torch.randint(17, (3, *shape))
        together = model.features(images)
        assert together.shape == (3, 16)
        torch.testing.assert_close(together[1:2], model.features(images[1:2]))


def test_shift_moves_a_picture_and_repeats_its_edge():
    images = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    moved = shifted(images, torch.tensor([[0.01, 0.99], [0.5, 0.5]]), 1)
    for row in range(4):
        for column in range(5):
            source = images[0, :, max(row - 1, 0), min(column + 1, 4)]
            assert torch.equal(moved[0, :, row, column], source)
    assert torch.equal(moved[1], images[1])


def test_shifts_reach_every_direction_equally_often():
    images = torch.zeros(3000, 1, 3, 3)
    images[:, :, 1, 1] = 1
    uniforms = torch.rand(3000, 2, generator=torch.Generator().manual_seed(0))
    shares = shifted(images, uniforms, 1).mean(0)
    # 1/9 with a standard error of 0.0057: five of them are left once in 200,000 seeds a cell
    assert float((shares - 1 / 9).abs().max()) < 0.029


def test_training_shifts_by_key_alone():
    model = build((1, 8, 8), 4, several=False)
    model.dropout.p = 0.0
    model.train()
    images, condition = torch.randint(17, (6, 1, 8, 8)), torch.tensor([[1]] * 6)
    keys, t = torch.arange(6) * 7, torch.rand(6)
    together, _ = model(images, condition, keys, t)
    alone, _ = model(images[4:5], condition[4:5], keys[4:5], t[4:5])
    torch.testing.assert_close(together[4:5], alone)
    assert not torch.allclose(together, model.eval()(images, condition, keys, t)[0])
