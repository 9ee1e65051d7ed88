from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import RandAugment

from harness.batch import TokenTargets
from harness.data import check_data, data_digest, image_folder
from harness.data.augmentation import seeded
from harness.data.streaming import StreamedData
from harness.data.token_labels import (
    MOVES,
    FollowedMap,
    LabelMaps,
    draw_box,
    mix_labels,
    read_label_map,
    to_token_logits,
)
from harness.errors import DataError
from harness.spec import AugmentationSpec, DataSpec, TokenLabelsSpec, TrainingSpec

CPU = torch.device("cpu")
GRID = 4
SPEC = DataSpec(name="image_folder", num_classes=3, channels=3, image_size=32, val_images=0)
LABELS = TokenLabelsSpec(grid=GRID)
AUGMENTATION = AugmentationSpec(hflip=0.5, reprob=0.25, auto_augment="rand-m9-mstd0.5-inc1")


def _training(labels: TokenLabelsSpec | None = LABELS, augmentation: AugmentationSpec = AUGMENTATION) -> TrainingSpec:
    return TrainingSpec(lr=1e-3, batch_size=4, epochs=1, smoothing=0.1, augmentation=augmentation, token_labels=labels)


def _to_map(classes: np.ndarray, score: float = 20.0) -> torch.Tensor:
    """Two classes at each place: the given one, and the next with no score."""
    index = torch.from_numpy(classes)
    return torch.stack(
        [
            torch.stack([torch.full(classes.shape, score), torch.zeros(classes.shape)]),
            index + torch.tensor([0, 1])[:, None, None],
        ]
    ).half()


@pytest.fixture
def folder(write_images: Callable[[str], Path]) -> Path:
    """Images with a label map each: the class of the image everywhere."""
    root = write_images("jpg")
    for image in sorted((root / "train").rglob("*.jpg")):
        path = root / "label_maps" / image.relative_to(root / "train").with_suffix(".pt")
        path.parent.mkdir(parents=True, exist_ok=True)
        scores = torch.full((1, 6, 6), 9.0)
        torch.save(
            torch.stack([scores, torch.full_like(scores, ["ant", "bee", "cat"].index(image.parent.name))]).half(), path
        )
    return root


def _load(folder: Path, training: TrainingSpec | None = None, **values: int) -> StreamedData:
    spec, training = SPEC.model_copy(update=values), training or _training()
    check_data(spec, training, data_dir=folder)
    data = image_folder.load_data(spec, training, replicate=0, data_dir=folder, device=CPU)
    assert isinstance(data, StreamedData)
    return data


def _batches(data: StreamedData, epoch: int = 1) -> list[tuple[torch.Tensor, TokenTargets]]:
    batches = list(data.train_batches(epoch))
    assert all(isinstance(targets, TokenTargets) for _, targets in batches)
    return batches


@pytest.mark.parametrize("first", [1, 2])
def test_an_epoch_that_begins_later_has_the_same_batches(folder: Path, first: int) -> None:
    whole, rest = _batches(_load(folder))[first:], list(_load(folder).train_batches(1, first))
    assert len(rest) == len(whole) > 0
    for (images, targets), (expected, others) in zip(rest, whole, strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(targets.image, others.image)
        assert torch.equal(targets.tokens, others.tokens)
        assert targets.box == others.box


def _make_quadrant() -> tuple[Image.Image, torch.Tensor]:
    """An oblong black image that is red at the top right, and its label map: class 1 there, class 0 elsewhere."""
    pixels, classes = np.zeros((90, 180, 3), np.uint8), np.zeros((18, 18), np.int64)
    pixels[:45, 90:, 0], classes[:9, 9:] = 255, 1
    return Image.fromarray(pixels), _to_map(classes)


@pytest.mark.parametrize("policy", [None, "rand-m9-n2-mstd0.5-inc1"], ids=["crop and flip", "every movement"])
def test_every_token_is_labelled_with_what_it_shows(policy: str | None, tmp_path: Path) -> None:
    image, label_map = _make_quadrant()
    torch.save(label_map, tmp_path / "0.pt")
    data = SPEC.model_copy(update={"image_size": 224})
    maps = LabelMaps([tmp_path / "0.pt"], data, TokenLabelsSpec(grid=14))
    transform = create_transform(
        (3, 224, 224), is_training=True, use_prefetcher=True, color_jitter=None, auto_augment=policy
    )
    for step in transform.transforms:
        if isinstance(step, RandAugment):
            step.ops = [op for op in step.ops if op.name.startswith(MOVES)]  # the others change colours
    seen = np.zeros(3, np.int64)
    for seed in range(20):
        with seeded(seed):
            pixels, followed = maps.follow(transform, image, 0)
        batch = FollowedMap(*(tensor[None] for tensor in followed))
        logits = to_token_logits(batch, num_classes=3, grid=14)[0]  # (14, 14, 3)
        patches = torch.as_tensor(pixels).float().reshape(3, 14, 16, 14, 16)
        high, low = patches.amax((2, 4)), patches.amin((2, 4))
        red, black = low[0] > 250, high[0] < 5
        filled = (low[2] > 90) & (low[0] > 120) & (high[0] < 128)
        assert (logits.argmax(-1)[red] == 1).all()
        assert (logits.argmax(-1)[black] == 0).all()
        assert (logits[filled] == 0).all()
        seen += [int(red.sum()), int(black.sum()), int(filled.sum())]
    assert (seen[:2] > 200).all()
    assert (seen[2] > 50) == (policy is not None)


def test_label_maps_change_no_pixel(folder: Path) -> None:
    with_maps = [images for images, _ in _batches(_load(folder))]
    without = [images for images, _ in _load(folder, _training(None)).train_batches(1)]
    assert all(torch.equal(one, other) for one, other in zip(with_maps, without, strict=True))


def test_targets_follow_replicate_and_epoch_alone(folder: Path) -> None:
    expected = _batches(_load(folder), 2)
    torch.manual_seed(99)
    data = _load(folder, loading_workers=2)
    _batches(data, 1)
    found = _batches(data, 2)
    for (_, one), (_, other) in zip(expected, found, strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.tokens, other.tokens)
        assert one.box == other.box
    assert len({targets.box for _, targets in expected}) > 1


def test_targets_are_smoothed_distributions_over_all_classes(folder: Path) -> None:
    for images, targets in _batches(_load(folder)):
        assert images.shape == (4, 3, 32, 32)
        assert targets.image.shape == (4, 3)
        assert targets.tokens.shape == (4, GRID, GRID, 3)
        torch.testing.assert_close(targets.image.sum(-1), torch.ones(4))
        torch.testing.assert_close(targets.tokens.sum(-1), torch.ones(4, GRID, GRID))
        assert targets.tokens.min() >= 0.1 / 3


def test_without_mixing_an_image_has_the_mean_logits_of_its_tokens(folder: Path) -> None:
    training = _training(TokenLabelsSpec(grid=GRID, mix_token=0), AugmentationSpec(hflip=0.5))
    data = _load(folder, training)
    labels = {name: index for index, name in enumerate(("ant", "bee", "cat"))}
    expected = torch.full((3, 3), 0.1 / 3) + 0.9 * torch.softmax(9 * torch.eye(3), -1)
    truth = [labels[Path(name).parent.name] for name in data.train_images.images.files]
    found = torch.cat([targets.image for _, targets in _batches(data)])
    torch.testing.assert_close(found.sort(0).values, expected[truth].sort(0).values)


@pytest.mark.parametrize("box", [(0, 0, 0, 0), (1, 0, 4, 2), (0, 0, 4, 4)], ids=["none", "some", "all"])
def test_a_mixed_image_is_labelled_by_area(box: tuple[int, int, int, int]) -> None:
    classes = torch.arange(3)  # image i is of class i, in every token
    shown = classes[:, None, None].expand(3, GRID, GRID).clone()
    top, left, bottom, right = box
    shown[:, top:bottom, left:right] = shown.flip(0)[:, top:bottom, left:right]
    expected = torch.stack([(shown == number).float().mean((1, 2)) for number in range(3)], dim=1)
    torch.testing.assert_close(mix_labels(torch.eye(3), box, GRID), expected)


def test_boxes_of_every_size_lie_inside_the_map() -> None:
    with seeded(0):
        boxes = np.array([draw_box(14, 1.0) for _ in range(500)])
    sides = boxes[:, 2:] - boxes[:, :2]
    assert boxes.min() == 0
    assert boxes.max() == 14
    assert sides.min() == 0
    assert sides.prod(1).max() > 0.8 * 14**2
    assert draw_box(14, 0.0) == (0, 0, 0, 0)


def test_without_the_folder_of_label_maps_one_message_tells_its_form(folder: Path) -> None:
    (folder / "label_maps").rename(folder / "maps")
    with pytest.raises(DataError, match=r"label_maps is missing: token_labels need label_maps/CLASS/NAME\.pt"):
        check_data(SPEC, _training(), data_dir=folder)
    check_data(SPEC, _training(None), data_dir=folder)


def test_an_image_without_label_map_is_named(folder: Path) -> None:
    (folder / "label_maps" / "bee" / "3.pt").unlink()
    with pytest.raises(DataError, match=r"1 training images have no label map; the first is label_maps/bee/3\.pt"):
        check_data(SPEC, _training(), data_dir=folder)


def test_a_policy_that_label_maps_cannot_follow_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="support timm's rand policies only, got 'original'"):
        check_data(SPEC, _training(augmentation=AugmentationSpec(auto_augment="original")), data_dir=folder)


def test_other_families_have_no_label_maps() -> None:
    spec = DataSpec(name="fashion_mnist", num_classes=10, channels=1, image_size=28, val_images=100)
    with pytest.raises(DataError, match=r"token_labels: the images of fashion_mnist have no label maps"):
        check_data(spec, _training(augmentation=AugmentationSpec()), data_dir=None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"no tensor", "cannot be read", id="damaged"),
        pytest.param(torch.zeros(3, 5), r"a tensor of \(2, k, rows, columns\), got \[3, 5\]", id="shape"),
        pytest.param({"a": 1}, "got dict", id="type"),
        pytest.param(torch.full((2, 1, 6, 6), 7.0), "has the classes 7 to 7, the recipe's are 0 to 2", id="classes"),
    ],
)
def test_what_is_no_label_map_is_named(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "0.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(DataError, match=message):
        read_label_map(path, 3)


def test_label_maps_of_two_shapes_are_refused(folder: Path) -> None:
    data = _load(folder)
    torch.save(torch.zeros(2, 1, 5, 6), folder / "label_maps" / "cat" / "7.pt")
    with pytest.raises(DataError, match=r"cat/7\.pt has the shape \[2, 1, 5, 6\]"):
        _batches(data)


def test_the_digest_has_the_label_maps_behind_the_images(folder: Path) -> None:
    images, both = (data_digest(SPEC, training, data_dir=folder) for training in (_training(None), _training()))
    assert both.startswith(f"{images}+")
    assert _load(folder).digest == both
    (folder / "label_maps" / "ant" / "0.pt").write_bytes(b"shorter")
    changed = data_digest(SPEC, _training(), data_dir=folder)
    assert changed != both
    assert changed.startswith(f"{images}+")
